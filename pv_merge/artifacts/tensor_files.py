"""Weight files written tensor by tensor, in shards."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pv_merge.artifacts.checkpoint import INDEX_NAME
from pv_merge.artifacts.folders import write_json

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5 * 10**9
"""Size at which a new file is begun, as transformers does."""


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
