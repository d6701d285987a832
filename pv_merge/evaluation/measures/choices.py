"""CommonsenseQA from a local file, scored as lm-evaluation-harness scores its task.

The prompt, the continuations " A" … " E" and the metric are those of the harness's
``commonsense_qa`` (0.4.13; no examples before the question): the likeliest letter is the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pv_merge.artifacts.provenance import file_hash
from pv_merge.data.encoding import Encoded
from pv_merge.data.questions import read_questions
from pv_merge.evaluation.measure import Advance, Parts
from pv_merge.evaluation.measures.capability import CAPABILITY, is_questions, named_path
from pv_merge.evaluation.measures.registry import MeasureKind
from pv_merge.evaluation.statistics import Estimate, share
from pv_merge.live.subject import Subject


class ChoicesMeasure:
    """Share of questions whose right letter is the likeliest."""

    needs_base = False

    def __init__(self, name: str, path: Path, limit: int | None = None) -> None:
        self.name, self.path = name, path
        self.questions = read_questions(path)[:limit]
        self._scorer: Any = None

    @property
    def size(self) -> int:
        """Number of continuations."""
        return sum(len(question.labels) for question in self.questions)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        return {
            "kind": "commonsenseqa",
            "data": file_hash(self.path),
            "questions": len(self.questions),
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the log-probability of every letter, question by question."""
        if self._scorer is None:
            self._scorer = self._encode(subject.tokenizer)
        values = iter(self._scorer.score(subject.model, advance))
        logps = [[round(next(values), 6) for _ in question.labels] for question in self.questions]
        return {"logps": logps}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return 1 for each question answered right."""
        pairs = zip(self.questions, record["logps"], strict=True)
        return {self.name: [float(logps.index(max(logps)) == q.answer) for q, logps in pairs]}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the accuracy with its interval."""
        return {name: share(values) for name, values in self.items(record, base).items()}

    def labels(self) -> dict[str, str]:
        """Return what the figure is."""
        return {self.name: f"accuracy on {len(self.questions)} questions of {self.path.name}"}

    def better(self) -> dict[str, int]:
        """More is better."""
        return {self.name: 1}

    def _encode(self, tokenizer: Any) -> Any:
        from pv_merge.evaluation.logprobs import Scorer

        sequences = []
        for question in self.questions:
            context = question.context()
            start = len(tokenizer(context)["input_ids"])
            for label in question.labels:
                tokens = tokenizer(f"{context} {label}")["input_ids"]
                sequences.append(Encoded(tuple(tokens), start))
        return Scorer(sequences)


CHOICES = MeasureKind(
    CAPABILITY,
    lambda text, said: ChoicesMeasure(*named_path(text, "commonsenseqa"), said["limit"]),
    accepts=is_questions,
)
