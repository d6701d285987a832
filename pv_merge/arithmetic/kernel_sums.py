"""Sums over rows: inner products for reports, exact ones for norms, and counts for thresholds."""

from __future__ import annotations

import numpy as np

from pv_merge.arithmetic.compiling import (
    f32_at,
    f64_at,
    i64_at,
    part_of_kernels,
    reordered_sum,
    u32_at,
)
from pv_merge.arithmetic.kernel_rows import SIZE, ZERO

HIGH = 16
"""Bits of a size that the first count of a threshold goes by; the second goes by the other 15."""


@reordered_sum
def dot(left: int, right: int, count: int) -> float:
    """Return ⟨left, right⟩ of a row. Its last digits may differ between kinds of processor."""
    a, b, total = f32_at(left), f32_at(right), ZERO
    for i in range(count):
        total += a[i] * b[i]
    return np.float64(total)


@reordered_sum
def five_dots(
    first: int, second: int, third: int, count: int
) -> tuple[float, float, float, float, float]:
    """Return the inner products of two rows with each other and a third: the usual report, in one go."""
    a, b, c = f32_at(first), f32_at(second), f32_at(third)
    aa = ab = ac = bb = bc = ZERO
    for i in range(count):
        aa += a[i] * a[i]
        ab += a[i] * b[i]
        ac += a[i] * c[i]
        bb += b[i] * b[i]
        bc += b[i] * c[i]
    return np.float64(aa), np.float64(ab), np.float64(ac), np.float64(bb), np.float64(bc)


@part_of_kernels
def add_to_lanes(left: int, right: int, count: int, lanes: int) -> None:
    """Add left·right to a sum for each place in the row, in float64: the order is always the same."""
    a, b, sums = f32_at(left), f32_at(right), f64_at(lanes)
    for i in range(count):
        sums[i] = sums[i] + np.float64(a[i]) * np.float64(b[i])


@part_of_kernels
def count_high(row: int, count: int, counts: int) -> None:
    """Count sizes by their upper bits."""
    bits, found = u32_at(row), i64_at(counts)
    for i in range(count):
        found[np.int64(np.uint32(bits[i] & SIZE) >> np.uint32(31 - HIGH))] += 1


@part_of_kernels
def count_low(row: int, high: int, count: int, counts: int) -> None:
    """Count those sizes whose upper bits are ``high`` by their lower ones."""
    bits, found = u32_at(row), i64_at(counts)
    for i in range(count):
        size = np.uint32(bits[i] & SIZE)
        if np.int64(size >> np.uint32(31 - HIGH)) == high:
            found[np.int64(size & np.uint32((1 << (31 - HIGH)) - 1))] += 1
