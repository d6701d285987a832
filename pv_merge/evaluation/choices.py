"""CommonsenseQA from a local file, scored as lm-evaluation-harness scores its task.

The prompt, the continuations " A" … " E" and the metric are those of the harness's
``commonsense_qa`` (0.4.13; no examples before the question): the likeliest letter is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts, Subject
from pv_merge.evaluation.provenance import file_hash
from pv_merge.evaluation.statistics import Estimate, share
from pv_merge.evaluation.tokens import Encoded


@dataclass(frozen=True)
class Question:
    """One question with its choices."""

    text: str
    labels: tuple[str, ...]
    choices: tuple[str, ...]
    answer: int
    """Place of the right choice."""

    def context(self) -> str:
        """Return the prompt."""
        pairs = zip(self.labels, self.choices, strict=True)
        lines = "\n".join(f"{label}. {choice}" for label, choice in pairs)
        return f"Question: {self.text.strip()}\n{lines}\nAnswer:"


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


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a jsonl file, as CommonsenseQA was published or as on the Hub."""
    from pv_merge.evaluation.prompts import read_jsonl

    questions = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            questions.append(_question(row))
        except (KeyError, TypeError, ValueError):
            raise PvMergeError(
                f"{path}: row {number} is not of CommonsenseQA's form (question with stem and choices, "
                f"answerKey; its columns: {', '.join(map(str, row))})"
            ) from None
    if not questions:
        raise PvMergeError(f"{path}: holds no questions")
    return questions


def _question(row: dict[str, Any]) -> Question:
    question = row["question"]
    if isinstance(question, dict):
        stem, choices = question["stem"], question["choices"]
    else:
        stem, choices = question, row["choices"]
    if isinstance(choices, dict):
        labels: Sequence[str] = choices["label"]
        texts: Sequence[str] = choices["text"]
    else:
        labels, texts = [c["label"] for c in choices], [c["text"] for c in choices]
    return Question(str(stem), tuple(labels), tuple(texts), list(labels).index(row["answerKey"]))
