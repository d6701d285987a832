"""What kernels add up for the loss report."""

from __future__ import annotations

import numpy as np

from pv_merge.arithmetic.compiling import part_of_kernels
from pv_merge.arithmetic.kernel_shape import ROW
from pv_merge.arithmetic.kernel_sums import dot, five_dots

ROW_BYTES = 4 * ROW


@part_of_kernels
def report_row(origin, phi, change, count, preferences, target, shared, sums):
    """Add a row's inner products: ‖base‖² and ⟨φ, φ⟩ once, ⟨out − base, φ⟩ for each target.

    ``phi`` is where the first φ lies, the others behind it. Returns whether the row counts: one with values that are not finite is left out.
    """
    own = dot(change, change, count)
    if preferences == 2 and target == 0:
        base = dot(origin, origin, count)
        aa, ab, ac, bb, bc = five_dots(phi, phi + ROW_BYTES, change, count)
        if not np.isfinite(base + aa + bb + own):
            return False
        shared[0] += base
        shared[1] += aa
        shared[2] += ab
        shared[4] += bb
        sums[1] += ac
        sums[2] += bc
        sums[3] += own
        return True
    if target == 0:
        size = dot(origin, origin, count) + own
        for p in range(preferences):
            size += dot(phi + p * ROW_BYTES, phi + p * ROW_BYTES, count)
        if not np.isfinite(size):
            return False
        shared[0] += dot(origin, origin, count)
    for p in range(preferences):
        row = phi + p * ROW_BYTES
        if target == 0:
            for q in range(p, preferences):
                shared[1 + p * preferences + q] += dot(row, phi + q * ROW_BYTES, count)
        sums[1 + p] += dot(row, change, count)
    sums[1 + preferences] += own
    return True
