"""The user's cache folder for this package."""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder for this package (``PV_MERGE_CACHE`` overrides it)."""
    import os

    named = os.environ.get("PV_MERGE_CACHE")
    if named:
        return Path(named).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "pv-merge"
