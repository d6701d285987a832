"""Answers to a few prompts, to be read rather than counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pv_merge.evaluation.measure import Advance, Parts
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.generation import MAX_NEW_TOKENS, greedy
from pv_merge.live.subject import Subject


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
        texts = greedy(subject, self.prompts, self.max_new_tokens)
        advance(self.size)
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
