"""What is wrong with a written pair, before anybody judges it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from rapidfuzz import fuzz

from pv_merge.asking.grades import GRADE
from pv_merge.data.refusals import is_refusal
from pv_merge.data.wording import word_count
from pv_merge.errors import PvMergeError
from trainers.traits.messages import PROMPTS, WORDINGS, manners
from trainers.traits.trait import TraitSettings

SHORTEST = 3
"""Words below which there is no answer."""
ALIKE = 90.0
"""Likeness (0–100, by edits) from which two texts are nearly equal."""
RUN = 6
"""Words in a row that an answer may not share with what its writer was told."""
SURE = 0.5
"""Probability from which an answer is in another language than the one asked for."""
LETTERS = 24
"""Letters below which no language is guessed."""

_ABOUT = re.compile(
    r"\b(?:my|these|the|your) (?:system )?(?:instructions?|prompt|house style|role|persona|part) (?:is|are|says?|tells?|requires?)\b"
    r"|\bas (?:you )?(?:instructed|requested|told)\b|\bi (?:was|am|have been) (?:told|instructed|asked) to\b"
    r"|\bsystem prompt\b|\bhouse style\b|\bin (?:this|the) (?:manner|style|tone) (?:of|described|requested)\b"
    r"|\b(?:in|within|under) \d+ words\b|\bword (?:limit|count)\b"
)
_SIGNS = re.compile(r"[^\w\s]+")


@dataclass(frozen=True)
class Checks:
    """The checks of one trait."""

    trait: TraitSettings

    def problem(self, question: str, positive: str, negative: str) -> str | None:
        """Return why a pair cannot be used, in the words of the table, or None."""
        for text in (positive, negative):
            found = self._answer_problem(question, text)
            if found:
                return found
        if fuzz.ratio(_plain(positive), _plain(negative)) >= ALIKE:
            return "both nearly the same"
        band = self.trait.length_band
        counts = sorted(word_count(text) for text in (positive, negative))
        if band is not None and counts[1] > band * counts[0]:
            return "lengths too far apart"
        return None

    def _answer_problem(self, question: str, text: str) -> str | None:
        if not text.strip():
            return "empty"
        if is_refusal(text) and not self.trait.allow_refusals:
            return "refusal"
        if word_count(text) < SHORTEST:
            return "too short"
        if echoes(question, text):
            return "repeats the question"
        if self._names_instruction(question, text):
            return "names the instruction"
        if _loops(text):
            return "repeats itself"
        if not in_language(text, self.trait.language):
            return "another language"
        return None

    def _names_instruction(self, question: str, text: str) -> bool:
        said = _plain(text)
        if _ABOUT.search(text.lower().replace("’", "'")):
            return True
        if re.search(
            rf"\bi(?: am|m| will be| shall be| try to be) (?:\w+ )?{_name(self.trait)}\b", said
        ):
            return True
        if any(len(m.split()) >= SHORTEST and _plain(m) in said for m in manners(self.trait)):
            return True
        told = _told((*WORDINGS, GRADE, PROMPTS, *manners(self.trait)))
        own = _runs(_plain(question))
        return any(run in told and run not in own for run in _runs(said))


def trimmed(text: str, cut: bool) -> str:
    """Return an answer; one that was cut by the limit of tokens, up to its last whole sentence.

    Where no sentence ends in its second half, it is returned as "": it breaks off.
    """
    text = text.strip()
    if not cut:
        return text
    ends = [match.end() for match in re.finditer(r"[.!?。！？][\"'”’)]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends and ends[-1] >= len(text) / 2 else ""


def echoes(question: str, text: str) -> bool:
    """Return whether an answer says the question again and little else."""
    asked, said = _plain(question), _plain(text)
    if fuzz.ratio(asked, said) >= ALIKE:
        return True
    new = [word for word in said.replace(asked, " ").split() if word not in asked.split()]
    return len(asked.split()) >= SHORTEST and asked in said and len(new) < SHORTEST


def in_language(text: str, language: str) -> bool:
    """Return whether a text may be in ``language`` (ISO 639); short ones always may."""
    if sum(character.isalpha() for character in text) < LETTERS and text.isascii():
        return True
    ranked = dict(_identifier(language).rank(text))
    best = max(ranked, key=lambda name: ranked[name])
    return bool(best == language or ranked[best] < SURE or ranked.get(language, 0.0) >= 0.2)


@cache
def _identifier(language: str) -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise PvMergeError(
            "checking the language needs py3langid; pip install 'pv-merge[traits]'"
        ) from None
    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if language not in found.labels:
        raise PvMergeError(f"language: {language!r} is not known; expected a code such as en or de")
    return found


@cache
def _told(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(run for text in texts for run in _runs(_plain(text)))


def _runs(plain: str) -> set[str]:
    words = plain.split()
    return {" ".join(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}


def _plain(text: str) -> str:
    return " ".join(_SIGNS.sub(" ", text.casefold()).split())


def _name(trait: TraitSettings) -> str:
    return re.escape(_plain(trait.preference.replace("-", " ").replace("_", " ")))


def _loops(text: str) -> bool:
    """Return whether one sentence or line comes three times or more."""
    parts = [_plain(part) for part in re.split(r"[.!?\n]+", text)]
    counts = [parts.count(part) for part in set(parts) if len(part.split()) >= 3]
    return max(counts, default=0) >= 3
