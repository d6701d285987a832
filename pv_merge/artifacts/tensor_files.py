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
from pv_merge.artifacts.checkpoint import INDEX_NAME
from pv_merge.artifacts.folders import write_json

SHARD_BYTES = 5 * 10**9
"""Size at which a new file is begun, as transformers does."""


class Place(NamedTuple):
    """Where an output tensor goes."""

    descriptor: int
    position: int
    dtype: torch.dtype


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
        shards = _shards(tensors, shard_bytes)
        weight_map: dict[str, str] = {}
        total = 0
        for number, names in enumerate(shards, start=1):
            alone = len(shards) == 1
            file = (
                "model.safetensors"
                if alone
                else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            )
            total += self._lay_out(folder / file, {name: tensors[name] for name in names})
            weight_map.update(dict.fromkeys(names, file))
        if len(shards) > 1:
            write_json(
                folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map}
            )

    def _lay_out(self, path: Path, tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> int:
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
        if offset:
            os.posix_fallocate(descriptor, 0, start + offset)
        for name, (dtype, _) in tensors.items():
            self._places[name] = Place(descriptor, start + starts[name], dtype)
        return offset

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


def _shards(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    # Wider dtypes first, as safetensors itself does, so that every tensor is aligned.
    for name in sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name)):
        size = _bytes(*tensors[name])
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


class ShardWriter:
    """Collects tensors and writes them as ``model-….safetensors``, with an index for several.

    A single shard is called ``model.safetensors``. Use it as a context manager; when the block
    raises, nothing more is written.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._current: dict[str, Tensor] = {}
        self._size = self._total = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor; it is written no later than at the end of the block."""
        if self._current and self._size + tensor.nbytes > self._limit:
            self._flush()
        self._current[name] = tensor.contiguous()
        self._size += tensor.nbytes
        self._total += tensor.nbytes

    def _part(self, number: int) -> Path:
        return self._folder / f"model-part-{number:05d}.safetensors"

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if self._current:
            save_file(self._current, self._part(len(self._shards) + 1), metadata={"format": "pt"})
            self._shards.append(list(self._current))
            self._current, self._size = {}, 0

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
        count = len(self._shards)
        if count == 1:
            self._part(1).rename(self._folder / "model.safetensors")
            return
        weight_map = {}
        for number, names in enumerate(self._shards, start=1):
            final = f"model-{number:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self._folder / final)
            weight_map.update(dict.fromkeys(names, final))
        write_json(
            self._folder / INDEX_NAME,
            {"metadata": {"total_size": self._total}, "weight_map": weight_map},
        )
