"""The merge in fused kernels: base + Σ η·φ of a window, for any number of inputs and outputs.

The readable reference is ``pv_merge.arithmetic.preference``; tests hold both to the same bits.
Inputs are read where they lie, in their stored dtype, a row at a time, and the outputs are written;
all that lies between stays in a core's first-level cache. ``pv_merge.arithmetic.fused`` calls them.
"""

from __future__ import annotations

import numpy as np

from pv_merge.arithmetic.compiling import Kernel, part_of_kernels
from pv_merge.arithmetic.kernel_report import report_row
from pv_merge.arithmetic.kernel_rounding import (
    FITS_BFLOAT16,
    cut_to_bfloat16,
    largest_size,
    limit,
    put,
    to_grid,
)
from pv_merge.arithmetic.kernel_rows import (
    BF16,
    F16,
    F32,
    F64,
    INFINITE,
    add_elected,
    add_input,
    bytes_of,
    fill,
    keep_base,
    land,
    pair_of_bfloat16,
    put_doubles,
    sparsify,
    step,
    subtract,
    vote,
    widen,
)
from pv_merge.arithmetic.kernel_shape import (
    BLOCK,
    COUNT_HIGH,
    LANES,
    ROW,
    SCRATCH_ROWS,
)
from pv_merge.arithmetic.kernel_sums import (
    add_to_lanes,
    count_high,
    count_low,
)

_ROW_BYTES = 4 * ROW
_ORIGIN, _SPARE, _CHANGE, _VOTES, _PHI = 0, 1, 2, 3, SCRATCH_ROWS


@part_of_kernels
def _plain(code, source, cast, count, spare):
    """Return where a stored row lies as float32: where it is, or converted into ``spare``."""
    if code == F32 and cast < 0:
        return source
    widen(code, source, count, spare)
    if cast >= 0:
        to_grid(cast, False, spare, 0, count)
    return spare


@part_of_kernels
def _form(at, count, base, parts, bounds, sparse, shares, scratch):
    """Write base and every φ of a row into the scratch rows; return where the base's lies."""
    address, code, cast = base[0], base[1], base[2]
    here = address + at * bytes_of(code)
    origin = _plain(code, here, cast, count, scratch + _ORIGIN * _ROW_BYTES)
    spare = scratch + _SPARE * _ROW_BYTES
    preferences = bounds.size - 1
    for p in range(preferences):
        phi = scratch + (_PHI + p) * _ROW_BYTES
        first, last = bounds[p], bounds[p + 1]
        usual = last - first == 2 and parts[first, 2] == 1 and parts[first + 1, 2] == -1
        usual = usual and parts[first, 1] == BF16 and parts[first + 1, 1] == BF16
        if usual and code == BF16 and cast < 0:
            pair_of_bfloat16(
                here, parts[first, 0] + 2 * at, parts[first + 1, 0] + 2 * at, count, phi
            )
        else:
            for k in range(first, last):
                kind = parts[k, 1]
                source = parts[k, 0] + at * bytes_of(kind)
                row = _plain(kind, source, cast, count, spare)
                add_input(parts[k, 2], k == first, row, origin, count, phi)
        if sparse[p, 0] >= 0:
            sparse[p, 1] = sparsify(phi, sparse[p, 0], sparse[p, 1], count)
        for q in range(p):
            if shares[p, q] != 0:
                subtract(phi, scratch + (_PHI + q) * _ROW_BYTES, shares[p, q], count, phi)
    return origin


@part_of_kernels
def _change(rule, etas, several, count, scratch):
    """Write Σ η·φ of a row, of those elements that ``rule`` elects.

    Of ``several`` outputs each leaves out the preferences whose η is 0 there.
    """
    change, votes = scratch + _CHANGE * _ROW_BYTES, scratch + _VOTES * _ROW_BYTES
    active = 0
    for p in range(etas.size):
        active += etas[p] != 0 or not several
    if rule == 0 or active < 2:
        first = True
        for p in range(etas.size):
            if etas[p] != 0 or not several:
                step(first, scratch + (_PHI + p) * _ROW_BYTES, etas[p], count, change)
                first = False
        if first:
            fill(np.float32(0.0), count, change)
        return change
    fill(np.float32(0.0), count, change)
    fill(np.float32(0.0), count, votes)
    for p in range(etas.size):
        if etas[p] != 0 or not several:
            vote(rule == 2, scratch + (_PHI + p) * _ROW_BYTES, etas[p], count, votes)
    for p in range(etas.size):
        if etas[p] != 0 or not several:
            add_elected(votes, scratch + (_PHI + p) * _ROW_BYTES, etas[p], count, change)
    return change


@part_of_kernels
def _write(result, base, at, origin, change, count, noise, out):
    """Round base + change into ``out`` and return how many values are not finite.

    The change becomes what it is after rounding: out − base.
    """
    code, stochastic, stored, keep = result[0], result[1] != 0, result[2], result[3] != 0
    largest = land(origin, count, change)
    if code == BF16 and stochastic and stored == BF16 and largest <= FITS_BFLOAT16:
        cut_to_bfloat16(change, noise, origin, count, out)
        return 0
    bad = 0
    if keep and largest >= INFINITE:
        bad = keep_base(origin, keep, count, change)
        largest = largest_size(change, count)
    to_grid(code, stochastic, change, noise, count)
    if largest > min(limit(code), limit(stored)):
        to_grid(stored, False, change, noise, count)
        bad += keep_base(origin, keep, count, change)
        to_grid(code, False, change, noise, count)
    if base[1] == F64 and code == F64 and stored == F64 and base[2] < 0 and result[5] == 0:
        put_doubles(base[0] + 8 * at, origin, change, count, out)
    else:
        put(stored, change, count, out)
    if result[4] != 0:
        to_grid(stored, False, change, noise, count)
        subtract(change, origin, np.float32(1.0), count, change)
    return bad


@Kernel
def merge_window(
    count,
    base,
    parts,
    bounds,
    sparse,
    shares,
    rule,
    etas,
    result,
    lead,
    noise,
    outs,
    scratch,
    shared,
    sums,
):
    """Write the merge of ``count`` elements.

    ``base``: address, dtype, dtype to cast inputs to (−1: none). ``parts``: for each input its
    address, dtype and role; preference p has those from ``bounds[p]`` on. ``sparse``: for each
    preference the bits of its density's threshold (−1: none) and how many equal to it are still to
    stay, which is counted down. ``shares[p, q]``: what φ_p loses of φ_q. ``rule``: 0 none, 1 sum,
    2 count. ``etas``: (targets, preferences). ``result``: dtype to round to, whether
    stochastically, dtype to store, whether to keep the base's value for what is not finite, whether
    to report, whether to leave the base out. ``lead``: elements of the first block of noise that lie
    before the window. ``noise``: for each block the address of its first random word (0: none).
    ``outs``: an address for each target. Added to: ``shared``: ‖base‖², then ⟨φ_p, φ_q⟩; ``sums`` of each target: how many values
    are not finite, ⟨out − base, φ_p⟩, ‖out − base‖².
    """
    rows = scratch.ctypes.data
    preferences, width = bounds.size - 1, 4 if result[0] == F16 else 2
    at = 0
    while at < count:
        block, place = divmod(lead + at, BLOCK)
        here = min(ROW, count - at, BLOCK - place)
        words = noise[block] + width * place
        origin = _form(at, here, base, parts, bounds, sparse, shares, rows)
        if result[5] != 0:
            origin = rows + _SPARE * _ROW_BYTES
            fill(np.float32(0.0), here, origin)
        counts = result[4] != 0
        for t in range(outs.size):
            change = _change(rule, etas[t], outs.size > 1, here, rows)
            out = outs[t] + at * bytes_of(result[2])
            sums[t, 0] += _write(result, base, at, origin, change, here, words, out)
            if counts:
                phi = rows + _PHI * _ROW_BYTES
                counts = report_row(origin, phi, change, here, preferences, t, shared, sums[t])
        at += here


@Kernel
def survey_window(task, count, base, parts, bounds, sparse, shares, pairs, scratch, counts, lanes):
    """Measure ``count`` elements of every φ: what a control must know before it can be applied.

    ``task`` COUNT_HIGH or COUNT_LOW counts sizes into ``counts``, a row for each preference
    (``pairs[p, 0]`` says which upper bits count, in COUNT_LOW); LANES adds the products of the
    ``pairs`` (preferences; −1 is the base) to ``lanes``, a row for each pair.
    """
    rows = scratch.ctypes.data
    for at in range(0, count, ROW):
        here = min(ROW, count - at)
        origin = _form(at, here, base, parts, bounds, sparse, shares, rows)
        if task == LANES:
            for number in range(pairs.shape[0]):
                p, q = pairs[number, 0], pairs[number, 1]
                left = origin if p < 0 else rows + (_PHI + p) * _ROW_BYTES
                right = origin if q < 0 else rows + (_PHI + q) * _ROW_BYTES
                add_to_lanes(left, right, here, lanes[number].ctypes.data)
        else:
            for p in range(bounds.size - 1):
                row, found = rows + (_PHI + p) * _ROW_BYTES, counts[p].ctypes.data
                if task == COUNT_HIGH:
                    count_high(row, here, found)
                else:
                    count_low(row, pairs[p, 0], here, found)
