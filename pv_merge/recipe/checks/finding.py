"""What a check finds, in lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pv_merge.errors import Topic

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    """error: the merge would fail or be wrong; warning: it would lose something; note: for thought."""
    text: str
    topic: Topic = Topic.GENERAL
    """What it is about; never to be told from the text."""
