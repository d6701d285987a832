"""Parts of a manifest, whatever types a hostile or later one has in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """Return a manifest's part; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str | None:
    """Return a manifest's text; None where it is none."""
    return value if isinstance(value, str) and value else None


def base_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a vector's or policy's manifest says of its base."""
    return mapping(manifest.get("base")) or mapping(manifest.get("base_model"))


def halves_of(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a vector's manifest says of its policies, by polarity."""
    sides = ("positive", "negative")
    return {side: part for side in sides if (part := mapping(manifest.get(side)))}
