"""What every measure offers, and the model that it is taken of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.subject import Subject

Advance = Callable[[int], None]
"""Called with the number of units done."""


class Progress(Protocol):
    """Hears of the work to do, and of what is done of it."""

    def started(self, total: int) -> None:
        """There are ``total`` units of work from here on."""

    def advance(self, count: int) -> None:
        """So many more of them are done."""


class Silent:
    """Tells nobody."""

    def started(self, total: int) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""


SILENT = Silent()


class Parts(Protocol):
    """Where a long measure keeps what it has done, so that a killed run goes on from there."""

    def all(self) -> dict[str, Any]:
        """Return every part that is kept, by name."""

    def put(self, part: str, value: Any) -> None:
        """Keep a part on disk."""

    def shared(self, name: str) -> Parts:
        """Return parts of the same model that every measure has in common."""


class NoParts:
    """Keeps nothing."""

    def all(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def put(self, part: str, value: Any) -> None:
        """Do nothing."""

    def shared(self, name: str) -> Parts:
        """Return itself."""
        return self


class Measure(Protocol):
    """One kind of measurement of a model."""

    name: str
    """Short name; figures are called ``name`` or ``name.figure``."""
    needs_base: bool
    """Whether ``items`` compares with the base's record."""

    @property
    def size(self) -> int:
        """Units of work, for the progress bar."""

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights: data hashes and settings."""

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the raw record, as JSON values."""

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each figure's value for every item measured, for paired comparisons."""

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each figure with its interval."""

    def labels(self) -> dict[str, str]:
        """Return what each figure is, with its unit."""

    def better(self) -> dict[str, int]:
        """Return +1 for a figure of which more is better, −1 where less is; others are absent."""


def named(text: str, default: str) -> tuple[str, str]:
    """Return the two halves of ``NAME=REST``, or ``default`` and all of ``text``."""
    name, equals, rest = text.partition("=")
    if equals and re.fullmatch(r"[A-Za-z_][\w-]*", name):
        return name, rest
    return default, text


def named_file(text: str, option: str) -> tuple[str, str]:
    """Return the two halves of ``NAME=FILE``; ``PvMergeError`` where one is missing."""
    name, place = named(text, "")
    if not name or not place:
        raise PvMergeError(f"{option} {text}: expected NAME=FILE, such as polite=heldout.jsonl")
    return name, place
