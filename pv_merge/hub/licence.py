"""The licence that passes on from a base, and who says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.data.documents import parse_yaml, read_object
from pv_merge.errors import PvMergeError

NOTE = "pv_source.json"
"""What ``pv-merge fetch`` notes beside the weights."""
_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---", re.S)
_LIMIT = 4 << 20


@dataclass(frozen=True)
class Licence:
    """A licence, and who says so."""

    identifier: str
    """The Hub's identifier, such as ``apache-2.0``, or ``other``."""
    source: str
    name: str | None = None
    link: str | None = None

    @property
    def title(self) -> str:
        """The licence's own name where it has one."""
        return self.name or self.identifier

    def __str__(self) -> str:
        return f"{self.title} ({self.source})"


def licences_of(folder: Path, source: str) -> list[Licence]:
    """Return what a model's folder says of its licence: its card, or the note of ``fetch``."""
    said = front_matter(folder / "README.md")
    found = []
    if isinstance(said.get("license"), str):
        name, link = (said.get(f"license_{part}") for part in ("name", "link"))
        found.append(
            Licence(
                said["license"].lower(),
                f"{source}'s card",
                name if isinstance(name, str) else None,
                link if isinstance(link, str) else None,
            )
        )
    noted = source_note(folder).get("licence")
    if isinstance(noted, str):
        found.append(Licence(noted.lower(), source))
    return found


def front_matter(card: Path) -> dict[str, Any]:
    """Return the metadata of a model card; nothing where it cannot be read."""
    try:
        if not card.is_file() or card.stat().st_size > _LIMIT:
            return {}
        match = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
        return parse_yaml(match[1], card) if match else {}
    except (OSError, PvMergeError):  # a card that cannot be read says nothing
        return {}


def source_note(folder: Path) -> dict[str, Any]:
    """Return what ``pv-merge fetch`` noted in a folder; nothing where it noted nothing."""
    try:
        return read_object(folder / NOTE) if (folder / NOTE).is_file() else {}
    except PvMergeError:
        return {}
