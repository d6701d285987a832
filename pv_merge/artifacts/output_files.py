"""A merged model's weight files, laid out before anything is computed and filled in any order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pv_merge.arithmetic.stored import SIZES
from pv_merge.artifacts.byte_ranges import OpenFile
from pv_merge.artifacts.tensor_files import SHARD_BYTES, Shards

Planned = Mapping[str, tuple[str, tuple[int, ...]]]
"""(dtype, shape) of every output tensor, by name; dtypes as safetensors names them."""


class Place(NamedTuple):
    """Where an output tensor goes."""

    file: OpenFile
    position: int
    width: int
    """Bytes of an element."""


class OutputFiles:
    """The safetensors files of one output folder.

    The headers are written at once and each file gets its final length, so that a full disk shows
    at the start; ``write`` may then be called from any thread, for any part.
    """

    def __init__(self, folder: Path, tensors: Planned, shard_bytes: int = SHARD_BYTES) -> None:
        self._places: dict[str, Place] = {}
        self._files: list[OpenFile] = []
        shards = Shards(shard_bytes)
        # Wider dtypes first, as safetensors itself does, so that every tensor is aligned.
        for name in sorted(tensors, key=lambda name: (-SIZES[tensors[name][0]], name)):
            shards.add(name, _bytes(*tensors[name]))
        for file, names in shards.files().items():
            self._lay_out(folder / file, {name: tensors[name] for name in names})
        shards.write_index(folder)

    def _lay_out(self, path: Path, tensors: Planned) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        starts = {}
        for name, (dtype, shape) in tensors.items():
            size = _bytes(dtype, shape)
            header[name] = {
                "dtype": dtype,
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            starts[name] = offset
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # safetensors aligns the data to 8 bytes
        file = OpenFile(path, write=True)
        self._files.append(file)
        start = 8 + len(text)
        if offset:
            file.reserve(start + offset)
        file.write(memoryview(len(text).to_bytes(8, "little") + text), 0)
        for name, (dtype, _) in tensors.items():
            self._places[name] = Place(file, start + starts[name], SIZES[dtype])

    def write(self, name: str, start: int, part: memoryview) -> None:
        """Write the bytes of a flat part of a tensor, from element ``start`` on."""
        place = self._places[name]
        place.file.write(part, place.position + start * place.width)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files.clear()


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    size = SIZES[dtype]
    for extent in shape:
        size *= extent
    return size
