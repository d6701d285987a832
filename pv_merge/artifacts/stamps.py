"""Whether a file is still the one that was read first."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pv_merge.errors import PvMergeError

Stamp = tuple[int, int, int] | None


class Stamped(Protocol):
    """A file whose stamp was taken when its header was read."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def stamp(self) -> Stamp:
        """What it was then."""
        ...


def stamp_of(file: Path | int) -> Stamp:
    """Return what changes when a file (its path, or its descriptor) is written; None where it is gone.

    That is its size, its time and its inode.
    """
    try:
        state = file.stat() if isinstance(file, Path) else os.fstat(file)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ino


def refuse_changed(files: Iterable[Stamped]) -> None:
    """Raise ``PvMergeError`` for a file that is no longer the one whose header was read.

    To be called when all of it has been read: what was made of it may be of two files.
    """
    for file in files:
        if file.stamp is not None and stamp_of(file.path) != file.stamp:
            raise changed(file.path)


def changed(path: Path) -> PvMergeError:
    """Return the error about a file that changed while it was read."""
    return PvMergeError(
        f"{path}: was changed while it was read; is something still writing there? "
        "Nothing was made of it"
    )
