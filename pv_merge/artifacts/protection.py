"""Protected preferences: a negative eta of theirs needs a word in the recipe."""

from __future__ import annotations

from collections.abc import Iterable

PROTECTED_NAMES = frozenset({"harmless", "harmlessness", "safe", "safety"})
"""Preferences that are protected unless their manifest says ``protected: false``."""


def is_protected(name: str, *said: bool | None) -> bool:
    """Return whether a preference is protected: as any manifest says, else by its name."""
    spoken = [value for value in said if value is not None]
    return any(spoken) if spoken else name.lower() in PROTECTED_NAMES


def negative_problem(name: str, said: Iterable[bool | None]) -> str | None:
    """Return the line for a negative eta of ``name``, or None if it is not protected."""
    if not is_protected(name, *said):
        return None
    return (
        f"{name} is a protected preference and its eta is negative; add parameters: "
        "allow_protected_negative: true if this is meant"
    )
