"""Which base model a folder is: the hash of its weights, remembered for as long as they stand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pv_merge.artifacts.cache import cache_folder
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import write_json


def weights_hash(checkpoint: Checkpoint) -> str:
    """Return ``checkpoint.weights_sha256()``, from the cache where no file has changed."""
    known = known_hash(checkpoint)
    if known is not None:
        return known
    found = checkpoint.weights_sha256()
    place = _place(checkpoint)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"sha256": found})
    except OSError:
        pass  # a read-only home costs time, not correctness
    return found


def known_hash(checkpoint: Checkpoint) -> str | None:
    """Return the hash if the cache has it, without reading any weight."""
    try:
        known: str = json.loads(_place(checkpoint).read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return known


def _place(checkpoint: Checkpoint) -> Path:
    state = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in checkpoint.files
    ]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    return cache_folder() / "weights" / f"{key}.json"


HASHED_AT_ONCE = 1_000_000_000
"""Bytes of weights up to which a base is hashed without being asked; about a second."""
