"""Prompts for the answers: from a file, a data set, or the writer; each one once."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator

from rapidfuzz import fuzz, process

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Answer, Failure, Request
from pv_merge.asking.messages import Messages
from pv_merge.data import instructions, pairs
from pv_merge.data.prompts import read_prompts
from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError, did_you_mean
from trainers.traits.messages import FORMS, TOPICS, prompt_messages, question_of
from trainers.traits.pair_checks import in_language
from trainers.traits.trait import TraitSettings, WrittenPrompts

ALIKE = 88.0
"""Likeness (0–100) from which two prompts are one: their answers may not be told apart."""
TOGETHER = 8
"""Requests for new prompts that are sent at once."""
BARREN = 3
"""Rounds of invention without one new prompt after which the writer has no more."""
TOKENS_EACH = 40
"""Tokens that an invented prompt may have."""
_MARK = re.compile(r"^\s*(?:[-*•–]+|\(?\d{1,3}[.):]|\"|')\s*")


class PromptSource:
    """Prompts in a seeded order, near-equal ones left out."""

    def __init__(self, trait: TraitSettings, writer: Asker) -> None:
        self._trait, self._writer = trait, writer
        self._seen: list[str] = []
        self.repeated = 0
        """Prompts left out since one like them was taken."""
        written = trait.prompts.written
        self._coming = self._invented(written) if written else self._given()

    def take(self, count: int) -> list[Messages]:
        """Return up to ``count`` more prompts; fewer where there are no more."""
        found: list[Messages] = []
        for prompt in self._coming:
            text = " ".join(question_of(prompt).casefold().split())
            if process.extractOne(text, self._seen, scorer=fuzz.ratio, score_cutoff=ALIKE):
                self.repeated += 1
                continue
            self._seen.append(text)
            found.append(prompt)
            if len(found) >= count:
                break
        return found

    def _given(self) -> Iterator[Messages]:
        source = self._trait.prompts
        if source.dataset is not None:
            prompts = dataset_prompts(source.dataset)
        else:
            prompts = [(("user", prompt.text),) for prompt in read_prompts(str(source.file))]
        random.Random(self._trait.seed).shuffle(prompts)
        yield from prompts

    def _invented(self, settings: WrittenPrompts) -> Iterator[Messages]:
        cells = list(itertools.product(settings.topics or TOPICS, settings.forms or FORMS))
        order = random.Random(self._trait.seed)
        barren = 0
        for turn in itertools.count():
            order.shuffle(cells)
            for start in range(0, len(cells), TOGETHER):
                before, group = len(self._seen), cells[start : start + TOGETHER]
                for answer in self._writer.ask([self._request(settings, *c, turn) for c in group]):
                    yield from self._read(settings, answer)
                barren = 0 if len(self._seen) > before else barren + 1
                if barren >= BARREN:
                    return

    def _request(self, settings: WrittenPrompts, topic: str, form: str, turn: int) -> Request:
        temperature = self._writer.backend.temperature
        return Request(
            prompt_messages(topic, form, settings.at_once),
            settings.at_once * TOKENS_EACH,
            0.8 if temperature is None else temperature,
            seed_of(self._trait.seed, topic, form, turn),
        )

    def _read(self, settings: WrittenPrompts, answer: Answer) -> Iterator[Messages]:
        if isinstance(answer, Failure):
            return
        lines = answer.text.splitlines()
        # The last line of an answer that was cut is half a prompt.
        whole = lines[:-1] if answer.cut else lines
        for line in whole[: 2 * settings.at_once]:
            text = _MARK.sub("", line).strip().strip("\"'").strip()
            if self._is_prompt(text):
                yield (("user", text),)

    def _is_prompt(self, text: str) -> bool:
        words = text.split()
        if not 3 <= len(words) <= 60 or text.endswith(":"):
            return False
        names_it = re.search(rf"\b{re.escape(self._trait.preference)}\b", text, re.IGNORECASE)
        return names_it is None and in_language(text, self._trait.language)


def dataset_prompts(settings: DatasetSettings) -> list[Messages]:
    """Return the prompts of any data set of pairs or instructions."""
    if settings.format in pairs.FORMATS:
        return [_turns(pair.prompt) for pair in pairs.load_pairs(settings).pairs]
    if settings.format in instructions.FORMATS:
        return [_turns(row.prompt) for row in instructions.load_examples(settings).examples]
    known = [*pairs.FORMATS, *instructions.FORMATS]
    raise PvMergeError(
        f"prompts: {settings.path}: unknown format {settings.format!r}"
        f"{did_you_mean(settings.format, known)}"
    )


def _turns(prompt: Messages) -> Messages:
    """Return a prompt without its own system message, whose place the instruction takes."""
    return tuple(message for message in prompt if message[0] != "system")


def seed_of(*parts: object) -> int:
    """Return a seed of 31 bits that depends on all ``parts``."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) >> 1
