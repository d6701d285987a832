"""A merged model's weight files, laid out before anything is computed and filled in any order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import DTYPE_NAMES
from pv_merge.artifacts.byte_ranges import write_part
from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.model_files import INDEX_NAME, WEIGHTS_NAME
from pv_merge.errors import PvMergeError

SHARD_BYTES = 5 * 10**9
"""Size at which a new file is begun, as transformers does."""


class Place(NamedTuple):
    """Where an output tensor goes."""

    descriptor: int
    position: int
    dtype: torch.dtype


class Shards:
    """Which tensors go into which file: a new one is begun where the last would be too large."""

    def __init__(self, limit: int = SHARD_BYTES) -> None:
        self._limit = limit
        self._names: list[list[str]] = [[]]
        self._filled = self._total = 0

    def add(self, name: str, nbytes: int) -> bool:
        """Add a tensor; return whether it begins a new file."""
        begins = bool(self._names[-1]) and self._filled + nbytes > self._limit
        if begins:
            self._names.append([])
            self._filled = 0
        self._names[-1].append(name)
        self._filled += nbytes
        self._total += nbytes
        return begins

    def files(self) -> dict[str, list[str]]:
        """Return the names of tensors by the name of their file, which counts the files."""
        count = len(self._names)
        if count == 1:
            return {WEIGHTS_NAME: self._names[0]}
        return {
            f"model-{number:05d}-of-{count:05d}.safetensors": names
            for number, names in enumerate(self._names, start=1)
        }

    def write_index(self, folder: Path) -> None:
        """Write the index, if there is more than one file."""
        files = self.files()
        if len(files) > 1:
            weight_map = {name: file for file, names in files.items() for name in names}
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            write_json(folder / INDEX_NAME, index)


class OutputFiles:
    """The safetensors files of one output folder.

    ``tensors`` maps names to (dtype, shape). The headers are written at once and each file gets
    its final length, so that a full disk shows at the start; ``write`` may then be called from any
    thread, for any part.
    """

    def __init__(
        self,
        folder: Path,
        tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._places: dict[str, Place] = {}
        self._descriptors: list[int] = []
        shards = Shards(shard_bytes)
        # Wider dtypes first, as safetensors itself does, so that every tensor is aligned.
        for name in sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name)):
            shards.add(name, _bytes(*tensors[name]))
        for file, names in shards.files().items():
            self._lay_out(folder / file, {name: tensors[name] for name in names})
        shards.write_index(folder)

    def _lay_out(self, path: Path, tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        starts = {}
        for name, (dtype, shape) in tensors.items():
            size = _bytes(dtype, shape)
            header[name] = {
                "dtype": DTYPE_NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            starts[name] = offset
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # safetensors aligns the data to 8 bytes
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._descriptors.append(descriptor)
        os.pwrite(descriptor, len(text).to_bytes(8, "little") + text, 0)
        start = 8 + len(text)
        if offset and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, start + offset)
        elif offset:  # macOS
            os.ftruncate(descriptor, start + offset)
        for name, (dtype, _) in tensors.items():
            self._places[name] = Place(descriptor, start + starts[name], dtype)

    def write(self, name: str, start: int, part: Tensor) -> None:
        """Write a flat part of a tensor, from element ``start`` on; its dtype must be the planned."""
        place = self._places[name]
        assert part.dtype == place.dtype
        write_part(place.descriptor, place.position + start * part.dtype.itemsize, part)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return size


class ShardWriter:
    """Collects tensors and writes them into the files of ``Shards``, as they come.

    Use it as a context manager; when the block raises, nothing more is written.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._shards = folder, Shards(shard_bytes)
        self._current: dict[str, Tensor] = {}
        self._written = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor; it is written no later than at the end of the block."""
        if self._shards.add(name, tensor.nbytes):
            self._flush()
        self._current[name] = tensor.contiguous()

    def _part(self, number: int) -> Path:
        return self._folder / f"model-part-{number:05d}.safetensors"

    def _flush(self) -> None:
        if self._current:
            self._written += 1
            save_tensors(self._current, self._part(self._written))
            self._current = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        self._flush()
        for number, file in enumerate(self._shards.files(), start=1):
            self._part(number).rename(self._folder / file)
        self._shards.write_index(self._folder)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file, as transformers and PEFT mark it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # the library's only word for a full disk
        raise PvMergeError(f"{path}: cannot be written ({error})") from error
