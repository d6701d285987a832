"""Rounding float32 to bfloat16 or float16, to nearest or stochastically.

A merged weight lies between two values of the narrow dtype. To the nearest, a change smaller than
half their distance is lost altogether; stochastically, it arrives on average, because the upper
value is taken with a probability equal to how far the weight has come towards it.

The noise is a function of (seed, tensor name, position) and of nothing else, so that a merge can
be repeated to the bit on any number of threads, in any order, on any device.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pv_merge.arithmetic.choices import RoundingMode, refuse_unknown
from pv_merge.arithmetic.dtypes import DTYPE_NAMES, NARROW
from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.noise import BITS, first_word, ring

_F16_LARGEST = 65504.0
_F16_SMALLEST_NORMAL = 2.0**-14
_F16_SPACING = 2.0**-24


@lru_cache(maxsize=4)
def _table(device: str, dtype: torch.dtype) -> Tensor:
    """Return the ring of random words as int32."""
    return torch.from_numpy(ring(BITS[DTYPE_NAMES[dtype]]).astype(np.int32)).to(device)


class Rounder:
    """Rounds the chunks of one tensor to ``dtype``.

    ``round`` may be called for chunks in any order; a chunk starts at a multiple of its length or
    anywhere else: the noise belongs to the position. Raises ``PvMergeError`` for an unknown mode.
    """

    def __init__(self, dtype: torch.dtype, mode: RoundingMode, seed: int, name: str) -> None:
        refuse_unknown("rounding", mode, RoundingMode)
        self.dtype = dtype
        self.stochastic = mode == "stochastic" and dtype in NARROW.values()
        self._seed, self._name = seed, name

    def round(self, values: Tensor, start: int, out: Tensor) -> None:
        """Write ``values`` (float32, one dimension, from position ``start``) into ``out``.

        ``values`` is scratch and may be overwritten.
        """
        if not self.stochastic:
            out.copy_(values)
            return
        done = 0
        while done < values.numel():
            block, offset = divmod(start + done, BLOCK)
            size = min(BLOCK - offset, values.numel() - done)
            noise = self._noise(block, offset, size, values.device)
            part = slice(done, done + size)
            if self.dtype is torch.bfloat16:
                _to_bfloat16(values[part], noise, out[part])
            else:
                _to_float16(values[part], noise, out[part])
            done += size

    def _noise(self, block: int, offset: int, size: int, device: torch.device) -> Tensor:
        """Return random words for ``size`` positions from ``offset`` of ``block``.

        Each block begins at a place of its own in the table, which is closed to a ring.
        """
        first = offset + first_word(self._seed, self._name, block)
        return _table(str(device), self.dtype)[first : first + size]


def _to_bfloat16(values: Tensor, noise: Tensor, out: Tensor) -> None:
    """Add 16 random bits below bfloat16's last one, and cut them off.

    Infinities and NaN, and finite values beyond the largest bfloat16, are rounded to nearest.
    """
    # One cheap pass vouches for nearly every block: this sum overflows long before a value does.
    fits = float(torch.dot(values, values)) < torch.finfo(torch.float32).max
    nearest = None if fits else values.to(torch.bfloat16)
    usual = None if fits else values.abs() <= torch.finfo(torch.bfloat16).max
    bits = values.view(torch.int32).add_(noise).bitwise_right_shift_(16)
    out.view(torch.int16).copy_(bits)
    if usual is not None and nearest is not None:
        out.copy_(torch.where(usual, out, nearest))


def _to_float16(values: Tensor, noise: Tensor, out: Tensor) -> None:
    """The same for float16: 13 bits in its normal range, and a fixed spacing of 2^-24 below it."""
    bits = values.view(torch.int32)
    normal = ((bits + noise.bitwise_right_shift(11)) & ~0x1FFF).view(torch.float32)
    normal = normal.clamp(-_F16_LARGEST, _F16_LARGEST)
    steps = values.abs() / _F16_SPACING
    whole = steps.floor()
    up = (steps - whole) * float(1 << 24) > noise.to(torch.float32)
    small = ((whole + up) * _F16_SPACING).copysign(values)
    size = values.abs()
    rounded = torch.where(size < _F16_SMALLEST_NORMAL, small, normal)
    # Half a step beyond the largest value, float16 has only infinity left, as when casting.
    usual = size < _F16_LARGEST + 16
    out.copy_(torch.where(usual, rounded, values).to(torch.float16))
