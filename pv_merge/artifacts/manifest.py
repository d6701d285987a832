"""Manifests: what a folder's JSON says of how it was made, and the one reader of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import read_json

VECTOR_MANIFEST = "preference_vector.json"
"""The manifest of a preference vector."""


RUN_MANIFEST = "pv_run.json"
"""The manifest of a trained policy or base."""


MANIFESTS = (VECTOR_MANIFEST, RUN_MANIFEST)
"""Files that may say it, of a vector and of a policy."""


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
