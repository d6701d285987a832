"""One safetensors file: its header read once, its tensors mapped into memory where they are asked for."""

from __future__ import annotations

import math
import mmap
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pv_merge.arithmetic.stored import is_weight, size_of
from pv_merge.errors import PvMergeError, Topic, os_errors

if TYPE_CHECKING:
    import torch


KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""numpy's kinds of what holds weights; bfloat16 as its bits."""


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor."""

    dtype: str
    """safetensors' name of the dtype, such as ``BF16``."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""

    @property
    def floating(self) -> bool:
        """Whether it is a weight that can be merged, rather than a buffer or quantized."""
        return is_weight(self.dtype)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class WeightsFile:
    """A safetensors file. Raises ``PvMergeError`` where it is not a whole one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Dtype, shape and place of every tensor, as the library's own check of the header has them.

        The library vouches that the tensors fill the file's end without a gap, so that their order
        says where each begins. Without torch.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            what = "is not an ordinary file" if self.path.exists() else "no such file"
            raise PvMergeError(f"{self.path}: {what}", Topic.FOLDER)
        try:
            with os_errors(self.path, "read"), safe_open(self.path, framework="np") as file:
                parts = {name: file.get_slice(name) for name in file.offset_keys()}
                said = {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}
        except SafetensorError as error:
            raise PvMergeError(
                f"{self.path}: not a whole safetensors file ({error})", Topic.FOLDER
            ) from None
        sizes = {name: _nbytes(dtype, shape) for name, (dtype, shape) in said.items()}
        place = self.path.stat().st_size - sum(sizes.values())
        found = {}
        for name, (dtype, shape) in said.items():
            found[name] = TensorInfo(dtype, tuple(shape), place)
            place += sizes[name]
        return dict(sorted(found.items()))

    @cached_property
    def _mapped(self) -> mmap.mmap:
        with os_errors(self.path, "read"), self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def raw(self, name: str) -> np.ndarray:
        """Return one tensor's bytes, memory-mapped; ``PvMergeError`` for a dtype of unknown size."""
        info = self.infos[name]
        if not info.elements:
            return np.empty(0, np.uint8)
        nbytes = info.elements * size_of(info.dtype)
        return np.frombuffer(self._mapped, np.uint8, nbytes, info.offset)

    def float32(self, name: str) -> np.ndarray:
        """Return one tensor of weights in float32, which holds bfloat16 and float16 exactly."""
        return self.sample(name, 1).reshape(self.infos[name].shape)

    def sample(self, name: str, every: int) -> np.ndarray:
        """Return every so manieth weight of a tensor in float32, (count,)."""
        info = self.infos[name]
        if info.dtype not in KINDS:
            raise PvMergeError(
                f"{self.path}: {name} is stored as {info.dtype}, not as floats", Topic.DTYPE
            )
        return floats(self.raw(name), info.dtype, every)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor, memory-mapped, in its stored dtype; it outlives the file."""
        import torch

        from pv_merge.arithmetic.dtypes import DTYPES

        info = self.infos[name]
        if info.dtype not in DTYPES:
            raise PvMergeError(
                f"{self.path}: {name} is stored as {info.dtype}, which cannot be merged",
                Topic.DTYPE,
            )
        if not info.elements:
            return torch.empty(info.shape, dtype=DTYPES[info.dtype])
        flat = torch.frombuffer(
            self._mapped, dtype=DTYPES[info.dtype], count=info.elements, offset=info.offset
        )
        return flat.view(info.shape)


def floats(raw: np.ndarray, dtype: str, every: int = 1) -> np.ndarray:
    """Return the bytes of stored weights as float32, or of every so manieth."""
    flat = raw.view(KINDS[dtype])[::every]
    if dtype == "BF16":
        flat = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
    found: np.ndarray = flat.astype(np.float32, copy=False)
    return found


def _nbytes(dtype: str, shape: list[int]) -> int:
    """Return a tensor's size; a dtype's name says its bits, ``BOOL`` alone has none in it."""
    bits = re.search(r"[0-9]+", dtype)
    return math.prod(shape) * (int(bits[0]) if bits else 8) // 8
