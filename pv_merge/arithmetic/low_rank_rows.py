"""Rows of a low-rank change, block by block, for code that must do without torch.

Every route that needs a low-rank change in full takes it from here, in the same blocks, so that
all of them get the same bits from the same BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

import numpy as np

from pv_merge.arithmetic.kernel_shape import ROW

BLOCK_ELEMENTS = 1 << 18
"""Elements that a block has, about."""


class Factors(NamedTuple):
    """One weight's change as a product, ``scale · B @ A``, or its transpose."""

    a: np.ndarray
    """(rank, in_features), float32"""
    b: np.ndarray
    """(out_features, rank), float32"""
    scale: float
    transposed: bool = False
    """Whether the weight is stored as (in, out)."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight as it is stored."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)

    def times(self, factor: float) -> Factors:
        """Return the same times a number."""
        return self._replace(scale=self.scale * factor)

    def rows(self, start: int, stop: int, out: np.ndarray) -> None:
        """Write the rows from ``start`` to ``stop`` into ``out``, (rows, columns) in float32.

        They must be one of ``blocks``: another cut may give other last digits.
        """
        left, right = (self.a.T, self.b.T) if self.transposed else (self.b, self.a)
        np.matmul(left[start:stop], right, out=out)
        out *= np.float32(self.scale)


def block_rows(columns: int) -> int:
    """Return how many rows a block has: whole rows of kernels, and a core's cache full."""
    step = ROW // gcd(ROW, max(columns, 1))
    return step * max(1, BLOCK_ELEMENTS // max(columns * step, 1))


def blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of every block of a weight."""
    step = block_rows(shape[1])
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def dense(factors: Factors) -> np.ndarray:
    """Return the whole change in float32."""
    found = np.empty(factors.shape, np.float32)
    for start, stop in blocks(factors.shape):
        factors.rows(start, stop, found[start:stop])
    return found
