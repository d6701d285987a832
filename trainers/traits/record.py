"""What is recorded of pairs that a model wrote, and how training finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pv_merge.data.documents import read_json
from pv_merge.errors import PvMergeError

KIND = "pairs"


def manifest_of(pairs: Path) -> Path:
    """Return where the manifest of written pairs stands."""
    return pairs.with_name(f"{pairs.stem}.json")


def synthetic(path: str) -> dict[str, Any]:
    """Return ``{"synthetic": …}`` for pairs that a model wrote, and ``{}`` for other data.

    An edit of the pairs by hand does not take it away.
    """
    place = Path(path)
    if place.suffix != ".jsonl" or not place.is_file() or not manifest_of(place).is_file():
        return {}
    try:
        manifest = read_json(manifest_of(place))
    except PvMergeError:
        return {}  # a file of that name which is none of ours
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        return {}
    return {"synthetic": manifest.get("synthetic") or {}}
