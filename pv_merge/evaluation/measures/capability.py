"""The option that three kinds of measures share: ``--capability FILE`` or ``--capability TASK``."""

from __future__ import annotations

from pathlib import Path

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import named
from pv_merge.evaluation.measures.registry import Option

CAPABILITY = Option(
    "--capability",
    "Perplexity of a .txt; CommonsenseQA from a .jsonl; or a task of lm-evaluation-harness.",
    "[NAME=]FILE|TASK",
)
TEXTS, QUESTIONS = (".txt", ".md"), (".jsonl",)


def is_text(text: str) -> bool:
    """Return whether it names a file of text."""
    return _ending(text) in TEXTS


def is_questions(text: str) -> bool:
    """Return whether it names a file of questions."""
    return _ending(text) in QUESTIONS


def named_path(text: str, default: str) -> tuple[str, Path]:
    """Return a measure's name and its file; ``PvMergeError`` if there is no such file."""
    name, place = named(text, default)
    if not Path(place).is_file():
        raise PvMergeError(f"{CAPABILITY.flag} {text}: {place}: no such file")
    return name, Path(place)


def _ending(text: str) -> str:
    return Path(named(text, "")[1]).suffix.lower()
