"""Answers to prompts: kept batch by batch, or to be read rather than counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pv_merge.evaluation.measure import Advance, Parts
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.generation import BATCH, MAX_NEW_TOKENS, greedy
from pv_merge.live.subject import Subject


def generate_in_parts(
    subject: Subject,
    prompts: Sequence[str],
    max_new_tokens: int,
    parts: Parts,
    advance: Advance,
    batch_size: int = BATCH,
) -> list[str]:
    """Return the greedy answer to each prompt, keeping every batch as soon as it is there."""
    answers: dict[int, str] = {}
    for name, value in parts.all().items():
        if name.startswith("answers"):
            answers |= dict(zip(value["prompts"], value["answers"], strict=True))
    advance(len(answers))
    left = [index for index in range(len(prompts)) if index not in answers]

    def done(places: list[int], texts: list[str]) -> None:
        indices = [left[place] for place in places]
        answers.update(zip(indices, texts, strict=True))
        parts.put(f"answers {indices[0]}", {"prompts": indices, "answers": texts})
        advance(len(indices))

    greedy(subject, [prompts[index] for index in left], max_new_tokens, batch_size, done)
    return [answers[index] for index in range(len(prompts))]


class AnswersMeasure:
    """Answers to a few prompts, to be read rather than counted."""

    needs_base = False

    def __init__(self, prompts: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.name, self.prompts, self.max_new_tokens = "answers", list(prompts), max_new_tokens

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompts)

    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides the weights."""
        return {"kind": "answers", "prompts": self.prompts, "max_new_tokens": self.max_new_tokens}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers."""
        texts = greedy(
            subject,
            self.prompts,
            self.max_new_tokens,
            done=lambda indices, _: advance(len(indices)),
        )
        return {"answers": texts}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return nothing: there is nothing to count."""
        return {}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return nothing."""
        return {}

    def labels(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def better(self) -> dict[str, int]:
        """Return nothing."""
        return {}
