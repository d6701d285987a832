"""Multiple-choice questions, as CommonsenseQA was published or as on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError


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


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a jsonl file, as CommonsenseQA was published or as on the Hub."""
    from pv_merge.data.prompts import read_jsonl

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
    if not isinstance(stem, str) or len(labels) != len(texts) or len(set(labels)) != len(labels):
        raise ValueError("a stem, and a text for each of the different labels")
    answer = list(labels).index(row["answerKey"])
    return Question(stem, tuple(map(str, labels)), tuple(map(str, texts)), answer)
