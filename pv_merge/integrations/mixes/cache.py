"""The adapters on disk: made when first asked for, dropped when too many or too large.

What is on disk is the whole state, so that threads, servers that share a cache folder, and a
restart all see the same: a folder's time says when it was last asked for. A folder that is dropped
can still be needed by the engine, which loads lazily and asks no second time; see
``pv_merge.integrations.vllm.restore``.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pv_merge.artifacts.folders import new_folder
from pv_merge.errors import PvMergeError
from pv_merge.integrations.mixes.adapter import expected_bytes, write_mix
from pv_merge.integrations.mixes.shelf import Shelf, locked

if TYPE_CHECKING:
    from pv_merge.integrations.mixes.name import Terms


@dataclass(frozen=True)
class Entry:
    """An adapter's folder."""

    folder: Path
    nbytes: int
    used: int
    """When it was last asked for, in nanoseconds."""


class MixCache:
    """The adapters made of one shelf, at most ``mixes`` of them and at most ``nbytes`` together.

    One is made at a time, whoever asks: making one is copying memory, which gains nothing from
    threads, and memory stays bounded.
    """

    def __init__(self, shelf: Shelf, mixes: int, nbytes: int, *, evict: bool = True) -> None:
        self.shelf = shelf
        self.mixes = mixes
        self.nbytes = nbytes
        self.evict = evict
        """Whether to drop adapters when full, rather than to refuse new ones."""

    def adapter(self, terms: Terms) -> Path:
        """Return the folder of a mix, made if need be; ``PvMergeError`` where it cannot be held."""
        place = self.shelf.place(terms)
        self.shelf.mixes.mkdir(parents=True, exist_ok=True)
        with locked(self.shelf.folder / "lock"):
            if place.exists():
                os.utime(place)
                return place
            self._make_room(expected_bytes(self.shelf, terms))
            with new_folder(place) as work:
                write_mix(self.shelf, terms, work)
            os.utime(place)
        return place

    def entries(self) -> list[Entry]:
        """Return every adapter on disk, the one unused for longest first."""
        found = []
        for folder in self.shelf.mixes.iterdir():
            if not folder.name.startswith(".") and folder.is_dir():
                nbytes = sum(file.stat().st_size for file in folder.iterdir())
                found.append(Entry(folder, nbytes, folder.stat().st_mtime_ns))
        return sorted(found, key=lambda entry: entry.used)

    def _make_room(self, nbytes: int) -> None:
        if nbytes > self.nbytes:
            raise PvMergeError(
                f"the mix takes {nbytes / 1e9:.2g} GB, more than the whole cache may "
                f"({self.nbytes / 1e9:.2g} GB)"
            )
        for leftover in self.shelf.mixes.glob(".*"):  # of a server that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        entries = self.entries()
        total = sum(entry.nbytes for entry in entries)
        while entries and (len(entries) >= self.mixes or total + nbytes > self.nbytes):
            if not self.evict:
                raise PvMergeError(
                    f"the cache is full ({len(entries)} mixes), and this engine could not load "
                    "a mix again that is dropped from it"
                )
            oldest = entries.pop(0)
            total -= oldest.nbytes
            shutil.rmtree(oldest.folder, ignore_errors=True)
