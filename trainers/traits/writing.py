"""The loop: prompts are answered in two manners, checked, judged, and kept until there are enough."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Answer, Failure, Request
from pv_merge.asking.messages import Messages
from trainers.traits.judges import Judge, Verdict, Written
from trainers.traits.messages import WORDINGS, answer_messages, question_of
from trainers.traits.pair_checks import Checks, trimmed
from trainers.traits.prompts import PromptSource, seed_of
from trainers.traits.trait import TraitSettings

WAVE = 64
"""Pairs that are written before they are judged."""
KEPT = "kept"
ATTEMPTS = 10
"""Pairs that may be written for each one that is asked for."""


@dataclass
class Candidate:
    """One pair on its way."""

    prompt: Messages
    wording: int
    positive: str = ""
    negative: str = ""
    verdict: Verdict | None = None
    reason: str | None = None
    """Why it is not kept; None while it may be."""
    detail: str | None = None
    """What a failed request said."""

    def row(self) -> dict[str, Any]:
        """Return the candidate as it is recorded."""
        found: dict[str, Any] = {
            "reason": self.reason or KEPT,
            "wording": self.wording % len(WORDINGS),
            "prompt": [{"role": role, "content": text} for role, text in self.prompt],
            "positive": self.positive,
            "negative": self.negative,
        }
        if self.detail:
            found["detail"] = self.detail
        if self.verdict is not None:
            for side in ("positive", "negative"):
                grade = getattr(self.verdict, side)
                found[f"{side}_trait"], found[f"{side}_coherence"] = grade.trait, grade.coherence
        return found


@dataclass
class Harvest:
    """All candidates so far."""

    candidates: list[Candidate] = field(default_factory=list)

    @property
    def kept(self) -> list[Candidate]:
        """Those that are kept, in the order in which they were written."""
        return [candidate for candidate in self.candidates if candidate.reason is None]

    def reasons(self) -> dict[str, int]:
        """Return how many were not kept, by reason, the commonest first."""
        found = Counter(c.reason for c in self.candidates if c.reason is not None)
        return {str(reason): count for reason, count in found.most_common()}

    def summary(self) -> str:
        """Return the counts in one line."""
        parts = [f"{count} {reason}" for reason, count in self.reasons().items()]
        return f"{len(self.kept)} of {len(self.candidates)} kept" + (
            f"; {', '.join(parts)}" if parts else ""
        )


class Writing:
    """The pairs of one trait, wave by wave."""

    def __init__(self, trait: TraitSettings, writer: Asker, judge: Judge) -> None:
        self.trait, self.writer, self.judge = trait, writer, judge
        self.source = PromptSource(trait, writer)
        self.harvest = Harvest()
        self._checks = Checks(trait)

    def run(self, advance: Callable[[], None] = lambda: None) -> None:
        """Write until enough pairs are kept, the prompts end, or too many were written in vain.

        What was written stands in ``harvest`` also when this raises.
        """
        drafts = self._drafts()
        most = ATTEMPTS * self.trait.pairs
        while len(self.harvest.kept) < self.trait.pairs and len(self.harvest.candidates) < most:
            wave = list(islice(drafts, min(self._wave(), most - len(self.harvest.candidates))))
            if not wave:
                return
            self.harvest.candidates += wave
            try:
                self._write(wave, advance)
                self._judge([draft for draft in wave if draft.reason is None], advance)
            except BaseException:
                for draft in wave:
                    if draft.reason is None and draft.verdict is None:
                        draft.reason = "not finished"
                raise
            self._leave_surplus(wave)
            advance()

    def _wave(self) -> int:
        """Return how many pairs to write next: as many as will be needed at the share kept so far."""
        harvest = self.harvest
        lacking = self.trait.pairs - len(harvest.kept)
        share = (len(harvest.kept) + 1) / (len(harvest.candidates) + 1)
        return max(1, min(WAVE, round(lacking / share)))

    def _drafts(self) -> Iterator[Candidate]:
        """Yield pairs to be written: each prompt in turn, and the wordings in turn."""
        taken: list[Messages] = []
        number = 0
        for turn in range(self.trait.per_prompt):
            while turn == 0 and (fresh := self.source.take(1)):
                taken += fresh
                yield Candidate(fresh[0], number)
                number += 1
            for index, prompt in enumerate(taken if turn else ()):
                yield Candidate(prompt, index + turn)

    def requests(self, draft: Candidate) -> tuple[Request, Request]:
        """Return the requests for the positive and the negative answer."""
        trait = self.trait
        temperature = self.writer.backend.temperature
        seed = seed_of(trait.seed, draft.prompt, draft.wording)
        positive, negative = (
            Request(
                messages,
                answer_tokens(trait),
                0.8 if temperature is None else temperature,
                seed + side,
            )
            for side, messages in enumerate(answer_messages(trait, draft.prompt, draft.wording))
        )
        return positive, negative

    def _write(self, wave: list[Candidate], advance: Callable[[], None]) -> None:
        requests = [request for draft in wave for request in self.requests(draft)]
        answers = self.writer.ask(requests, advance)
        for draft, positive, negative in zip(wave, answers[::2], answers[1::2], strict=True):
            self._check(draft, positive, negative)

    def _check(self, draft: Candidate, positive: Answer, negative: Answer) -> None:
        for side, answer in (("positive", positive), ("negative", negative)):
            if isinstance(answer, Failure):
                draft.reason = (
                    "too long for the context" if answer.too_long else "the writer failed"
                )
                draft.detail = answer.reason
                continue
            text = trimmed(answer.text, answer.cut)
            setattr(draft, side, text or answer.text.strip())
            if answer.text.strip() and not text:
                draft.reason = draft.reason or "breaks off"
        if draft.reason is None:
            question = question_of(draft.prompt)
            draft.reason = self._checks.problem(question, draft.positive, draft.negative)

    def _judge(self, drafts: list[Candidate], advance: Callable[[], None]) -> None:
        pairs = [Written(draft.prompt, draft.positive, draft.negative) for draft in drafts]
        for draft, verdict in zip(drafts, self.judge.judge(pairs, advance), strict=True):
            if isinstance(verdict, Failure):
                draft.reason = verdict.reason
            else:
                draft.verdict = verdict
                draft.reason = verdict.problem(self.trait)

    def _leave_surplus(self, wave: list[Candidate]) -> None:
        for draft in reversed(wave):
            if len(self.harvest.kept) <= self.trait.pairs:
                return
            draft.reason = draft.reason or "more than was asked for"


def answer_tokens(trait: TraitSettings) -> int:
    """Return the tokens that an answer may have, with room for words of several."""
    return round(trait.max_words * 1.6) + 16


def held_out(trait: TraitSettings, kept: list[Candidate]) -> set[Messages]:
    """Return the prompts that are held out: about the share asked for, never none nor all.

    A prompt's hash decides, so that more pairs later do not move it to the other side.
    """
    places = {candidate.prompt: _place(trait, candidate.prompt) for candidate in kept}
    order = sorted(places, key=lambda prompt: places[prompt])
    if len(order) < 2:
        return set()
    chosen = [prompt for prompt in order if places[prompt] < trait.held_out]
    return set(chosen[: len(order) - 1] or order[:1])


def _place(trait: TraitSettings, prompt: Messages) -> float:
    text = json.dumps([trait.seed, prompt])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
