"""Which base model a folder is, by the hash of its weights, and whether two are the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.manifest import BaseNote
from pv_merge.cache import cache_folder
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError

HASHED_AT_ONCE = 1_000_000_000
"""Bytes of weights up to which a base is hashed without being asked; about a second."""


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
    except (OSError, PvMergeError):
        pass  # a read-only home costs time, not correctness
    return found


def known_hash(checkpoint: Checkpoint) -> str | None:
    """Return the hash if the cache has it, without reading any weight."""
    try:
        known = read_object(_place(checkpoint)).get("sha256")
    except PvMergeError:
        return None
    return known if isinstance(known, str) else None


def cheap_hash(checkpoint: Checkpoint) -> str | None:
    """Return the hash if it is known or takes no more than a second, else None."""
    size = sum(file.stat().st_size for file in checkpoint.files)
    return weights_hash(checkpoint) if size <= HASHED_AT_ONCE else known_hash(checkpoint)


def same_base(first: BaseNote, second: BaseNote) -> bool | None:
    """Return whether two manifests mean one base: by hash where both have one, else by path.

    None where one of them says neither.
    """
    if first.weights_sha256 and second.weights_sha256:
        return first.weights_sha256 == second.weights_sha256
    if first.path and second.path:
        return os.path.normpath(first.path) == os.path.normpath(second.path)
    return None


def from_other_bases(said: Mapping[str, str | None], own: str) -> list[str]:
    """Return the names whose manifest has another hash of the base than ``own``.

    ``said`` has each manifest's hash by a name; None, where there is none, says nothing.
    """
    return [name for name, value in said.items() if value and value != own]


def _place(checkpoint: Checkpoint) -> Path:
    state = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in checkpoint.files
    ]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    return cache_folder() / "weights" / f"{key}.json"
