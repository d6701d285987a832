"""Where each tensor lies in its safetensors file, and reads and writes of parts of it.

Whole tensors come from the safetensors library; this is for streaming, without torch: a file's own
pages where it can be mapped into memory, else a window at a time into memory that is used again.
Positioned reads and writes, where the system has them, go on in all threads at the same time.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pv_merge.arithmetic.stored import SIZES
from pv_merge.artifacts.stamps import changed, stamp_of
from pv_merge.artifacts.weights_file import WeightsFile
from pv_merge.errors import PvMergeError

_BINARY = getattr(os, "O_BINARY", 0)


class Range(NamedTuple):
    """A tensor's bytes in a file."""

    path: Path
    offset: int
    """Bytes from the start of the file."""
    dtype: str
    """safetensors' name of it."""
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.elements * SIZES[self.dtype]


def ranges(files: Iterable[WeightsFile]) -> dict[str, Range]:
    """Return the place of every tensor of a model's files (``Checkpoint.parts``)."""
    found: dict[str, Range] = {}
    for file in files:
        found |= ranges_in(file)
    return found


def ranges_in(file: WeightsFile) -> dict[str, Range]:
    """Return the place of every tensor of one file."""
    found = {}
    for name, info in file.infos.items():
        if info.dtype not in SIZES:
            raise PvMergeError(
                f"{file.path}: {name} is stored as {info.dtype}, which cannot be merged"
            )
        found[name] = Range(file.path, info.offset, info.dtype, info.shape)
    return found


class OpenFile:
    """A file that any thread may read and write anywhere."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._bytes: np.ndarray | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if write else os.O_RDONLY
        self._descriptor = os.open(path, flags | _BINARY, 0o666)
        self._lock = threading.Lock()  # for systems without positioned reads
        self._stamp = None if write else stamp_of(self._descriptor)

    def map(self) -> np.ndarray | None:
        """Return the file's bytes, mapped; None where the system cannot map it."""
        with self._lock:
            if self._bytes is None:
                try:
                    self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
                except (OSError, ValueError):  # a file system without it, or an empty file
                    return None
                self._bytes = np.frombuffer(self._map, np.uint8)
            return self._bytes

    def refuse_changed(self) -> None:
        """Raise ``PvMergeError`` where the file is not as it was when it was opened."""
        if stamp_of(self._descriptor) != self._stamp:
            raise changed(self.path)

    def read_into(self, memory: memoryview, position: int) -> None:
        """Fill ``memory`` from ``position`` on. Raises ``PvMergeError`` where the file is shorter."""
        done = 0
        while done < len(memory):
            got = self._read_some(memory[done:], position + done)
            if got == 0:
                raise PvMergeError(f"{self.path}: ends too early; was it changed during the merge?")
            done += got

    def _read_some(self, memory: memoryview, position: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [memory], position)
        with self._lock:
            os.lseek(self._descriptor, position, os.SEEK_SET)
            found = os.read(self._descriptor, len(memory))
        memory[: len(found)] = found
        return len(found)

    def write(self, memory: memoryview, position: int) -> None:
        """Write all of ``memory`` from ``position`` on."""
        done = 0
        while done < len(memory):
            if hasattr(os, "pwrite"):
                done += os.pwrite(self._descriptor, memory[done:], position + done)
                continue
            with self._lock:
                os.lseek(self._descriptor, position + done, os.SEEK_SET)
                done += os.write(self._descriptor, memory[done:])

    def reserve(self, size: int) -> None:
        """Give the file its final length, and its place on the disk where the system can."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, size)
        else:
            os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Close it; what ``map`` returned must not be used any more."""
        self._bytes = None
        if self._map is not None:
            with suppress(BufferError):  # held by the traceback of an error: closed with that
                self._map.close()
        os.close(self._descriptor)


class Files:
    """Open files by path; close them with ``close``."""

    def __init__(self) -> None:
        self._open: dict[Path, OpenFile] = {}
        self._lock = threading.Lock()

    def open(self, path: Path) -> OpenFile:
        """Return an open file for reading."""
        with self._lock:
            if path not in self._open:
                self._open[path] = OpenFile(path)
            return self._open[path]

    def read(self, place: Range, start: int, count: int, memory: memoryview) -> memoryview:
        """Read ``count`` elements of a tensor from ``start`` on; return the part of ``memory``."""
        width = SIZES[place.dtype]
        view = memory[: count * width]
        self.open(place.path).read_into(view, place.offset + start * width)
        return view

    def maps(self, place: Range) -> bool:
        """Return whether a tensor's file can be mapped into memory."""
        return self.open(place.path).map() is not None

    def address(self, place: Range, start: int, count: int) -> int | None:
        """Return where ``count`` elements of a tensor lie in memory; None where they cannot be mapped.

        The address holds until ``close``. Raises ``PvMergeError`` where the file has changed since
        it was opened, or is too short.
        """
        file = self.open(place.path)
        held = file.map()
        if held is None:
            return None
        file.refuse_changed()
        width = SIZES[place.dtype]
        first = place.offset + start * width
        if first + count * width > held.size:
            raise PvMergeError(f"{place.path}: ends too early; was it changed during the merge?")
        return int(held.ctypes.data) + first

    def close(self) -> None:
        """Close all of them."""
        for file in self._open.values():
            file.close()
        self._open.clear()


def parts_of(place: Range, size: int = 1 << 22) -> Iterator[memoryview]:
    """Yield a tensor's bytes, some millions at a time; each part lasts until the next."""
    buffer = np.empty(min(size, place.nbytes), np.uint8)
    file = OpenFile(place.path)
    try:
        for start in range(0, place.nbytes, size):
            part = buffer.data[: min(size, place.nbytes - start)]
            file.read_into(part, place.offset + start)
            yield part
    finally:
        file.close()


class Memory(threading.local):
    """Memory that each thread uses again."""

    def __init__(self) -> None:
        self._buffers: dict[int, np.ndarray] = {}

    def buffer(self, index: int, size: int) -> np.ndarray:
        """Return the thread's buffer of that number, of ``size`` bytes or more."""
        held = self._buffers.get(index)
        if held is None or held.nbytes < size:
            held = self._buffers[index] = np.empty(size, np.uint8)
        return held
