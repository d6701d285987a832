"""Which weight goes into which file, and weight files written tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.model_files import INDEX_NAME, WEIGHTS_NAME
from pv_merge.errors import PvMergeError

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5 * 10**9
"""Size at which a new file is begun, as transformers does."""


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
