"""What a check finds, in lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pv_merge.errors import PvMergeError, Topic

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    """error: the merge would fail or be wrong; warning: it would lose something; note: for thought."""
    text: str
    topic: Topic = Topic.GENERAL
    """What it is about; never to be told from the text."""


def error(text: str, topic: Topic) -> Finding:
    """Return an error."""
    return Finding("error", text, topic)


def warning(text: str, topic: Topic) -> Finding:
    """Return a warning."""
    return Finding("warning", text, topic)


def note(text: str, topic: Topic) -> Finding:
    """Return a note."""
    return Finding("note", text, topic)


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raise one ``PvMergeError`` with all errors; its topic is theirs if they share one."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        topics = {finding.topic for finding in errors}
        topic = topics.pop() if len(topics) == 1 else Topic.GENERAL
        raise PvMergeError("\n       ".join(finding.text for finding in errors), topic)
