"""Where each tensor lies in its safetensors file, and reads and writes of parts of it.

Whole tensors come from the safetensors library; this is for streaming: a block at a time, into
memory that is used again, without the page faults of a memory map.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import DTYPES
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError


class Range(NamedTuple):
    """A tensor's bytes in a file."""

    path: Path
    offset: int
    """Bytes from the start of the file."""
    dtype: torch.dtype
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
        return self.elements * self.dtype.itemsize


def ranges(checkpoint: Checkpoint) -> dict[str, Range]:
    """Return the place of every tensor of a checkpoint."""
    found: dict[str, Range] = {}
    for part in checkpoint.parts:
        for name, info in part.infos.items():
            if info.dtype not in DTYPES:
                raise PvMergeError(
                    f"{part.path}: {name} is stored as {info.dtype}, which cannot be merged"
                )
            found[name] = Range(part.path, info.offset, DTYPES[info.dtype], info.shape)
    return found


class Files:
    """Open file descriptors by path; close them with ``close``."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def descriptor(self, path: Path) -> int:
        """Return an open descriptor for reading."""
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
        return self._open[path]

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


class Memory(threading.local):
    """Memory that each thread uses again."""

    def __init__(self) -> None:
        self.buffers: dict[int, bytearray] = {}

    def buffer(self, index: int, size: int) -> bytearray:
        """Return the thread's buffer of that number, of ``size`` bytes or more."""
        if len(self.buffers.get(index, b"")) < size:
            self.buffers[index] = bytearray(size)
        return self.buffers[index]

    def output(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return memory for a result, the thread's own on a CPU."""
        if device.type != "cpu":
            return torch.empty(count, dtype=dtype, device=device)
        return torch.frombuffer(self.buffer(-1, count * dtype.itemsize), dtype=dtype, count=count)


def read_part(files: Files, place: Range, start: int, count: int, buffer: bytearray) -> Tensor:
    """Return ``count`` elements from ``start`` of a tensor, flat, held in ``buffer``."""
    size = count * place.dtype.itemsize
    view = memoryview(buffer)[:size]
    descriptor = files.descriptor(place.path)
    position = place.offset + start * place.dtype.itemsize
    done = 0
    while done < size:
        got = os.preadv(descriptor, [view[done:]], position + done)
        if got == 0:
            raise PvMergeError(f"{place.path}: ends too early; was it changed during the merge?")
        done += got
    return torch.frombuffer(buffer, dtype=place.dtype, count=count)


def write_part(descriptor: int, position: int, tensor: Tensor) -> None:
    """Write a flat, contiguous tensor's bytes at ``position`` of a file."""
    view = tensor.view(torch.uint8).numpy().data
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], position + done)
