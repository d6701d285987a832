"""Protected preferences: a negative eta of theirs needs a word in the recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pv_merge.folders import RUN_MANIFEST, VECTOR_MANIFEST, read_json

PROTECTED_NAMES = frozenset({"harmless", "harmlessness", "safe", "safety"})
"""Preferences that are protected unless their manifest says ``protected: false``."""

MANIFESTS = (VECTOR_MANIFEST, RUN_MANIFEST)
"""Files that may say it, of a vector and of a policy."""


def is_protected(name: str, *said: bool | None) -> bool:
    """Return whether a preference is protected: as any manifest says, else by its name."""
    spoken = [value for value in said if value is not None]
    return any(spoken) if spoken else name.lower() in PROTECTED_NAMES


def said_by(manifest: Mapping[str, Any], name: str) -> bool | None:
    """Return what a manifest says; its "no" does not hold for a name that it does not know."""
    said = manifest.get("protected")
    if not isinstance(said, bool) or (said is False and manifest.get("preference") != name):
        return None
    return said


@lru_cache(maxsize=256)
def said_in(folder: str, name: str) -> bool | None:
    """Return what the manifest in an input's folder says, or None where there is none."""
    for file in MANIFESTS:
        path = Path(folder) / file
        if path.exists():
            return said_by(read_json(path), name)
    return None


def negative_problem(name: str, said: Iterable[bool | None]) -> str | None:
    """Return the line for a negative eta of ``name``, or None if it is not protected."""
    if not is_protected(name, *said):
        return None
    return (
        f"{name} is a protected preference and its eta is negative; add parameters: "
        "allow_protected_negative: true if this is meant"
    )
