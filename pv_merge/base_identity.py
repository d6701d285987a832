"""Which base model a folder is: the hash of its weights, remembered for as long as they stand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pv_merge.checkpoint import Checkpoint
from pv_merge.folders import write_json


def cache_folder() -> Path:
    """Return the user's cache folder for this package (``PV_MERGE_CACHE`` overrides it)."""
    import os

    named = os.environ.get("PV_MERGE_CACHE")
    if named:
        return Path(named).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "pv-merge"


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
