"""What kernels do with a row: some thousand elements in a core's cache, known by their address.

A row is float32; where it comes from may be any stored dtype. Loops are kept so plain that the
compiler makes vector instructions of them.
"""

from __future__ import annotations

import numpy as np

from pv_merge.arithmetic.compiling import f32_at, f64_at, part_of_kernels, u16_at, u32_at
from pv_merge.arithmetic.stored import CODES

F32, BF16, F16, F64 = CODES["F32"], CODES["BF16"], CODES["F16"], CODES["F64"]

SIGN = np.uint32(0x80000000)
SIZE = np.uint32(0x7FFFFFFF)
INFINITE = np.uint32(0x7F800000)
_HALF_SHIFT = np.uint32(112 << 23)
_HALF_INFINITE = np.uint32(0x0F800000)
_HALF_SUBNORMAL = np.float32(2.0**-14)
ZERO = np.float32(0.0)


@part_of_kernels
def float_of(bits: int) -> float:
    """Return the float32 of those bits."""
    return np.uint32(bits).view(np.float32)


@part_of_kernels
def bits_of(value: float) -> int:
    """Return the bits of a float32."""
    return np.float32(value).view(np.uint32)


@part_of_kernels
def bytes_of(code: int) -> int:
    """Return the bytes of a stored element."""
    if code == F32:
        return 4
    return 8 if code == F64 else 2


@part_of_kernels
def from_bfloat16(word: int) -> float:
    """Return the value of bfloat16's bits."""
    return float_of(np.uint32(word) << np.uint32(16))


@part_of_kernels
def from_float16(word: int) -> float:
    """Return the value of float16's bits."""
    sign = np.uint32((np.uint32(word) & np.uint32(0x8000)) << np.uint32(16))
    bits = np.uint32((np.uint32(word) & np.uint32(0x7FFF)) << np.uint32(13))
    power = np.uint32(bits & _HALF_INFINITE)
    normal = np.uint32(bits + _HALF_SHIFT)
    special = np.uint32(bits | INFINITE)
    # Below the normal range the same digits mean another value: lent an implicit 1, then less it.
    lent = float_of(bits + _HALF_SHIFT + np.uint32(1 << 23))
    small = bits_of(lent - _HALF_SUBNORMAL)
    usual = special if power == _HALF_INFINITE else normal
    size = small if power == np.uint32(0) else usual
    return float_of(size | sign)


@part_of_kernels
def widen(code: int, source: int, count: int, out: int) -> None:
    """Write stored elements as float32."""
    row = f32_at(out)
    if code == BF16:
        halves = u16_at(source)
        for i in range(count):
            row[i] = from_bfloat16(halves[i])
    elif code == F16:
        halves = u16_at(source)
        for i in range(count):
            row[i] = from_float16(halves[i])
    elif code == F64:
        wide = f64_at(source)
        for i in range(count):
            row[i] = np.float32(wide[i])
    else:
        plain = f32_at(source)
        for i in range(count):
            row[i] = plain[i]


@part_of_kernels
def pair_of_bfloat16(base: int, positive: int, negative: int, count: int, out: int) -> None:
    """Write (positive − base) − (negative − base), the usual case, in one go."""
    origin, left, right, phi = u16_at(base), u16_at(positive), u16_at(negative), f32_at(out)
    for i in range(count):
        o = from_bfloat16(origin[i])
        phi[i] = (from_bfloat16(left[i]) - o) - (from_bfloat16(right[i]) - o)


@part_of_kernels
def add_input(role: int, first: bool, source: int, origin: int, count: int, out: int) -> None:
    """Add an input to φ: a positive (role 1) or negative (−1) policy, or a vector (0)."""
    s, o, phi = f32_at(source), f32_at(origin), f32_at(out)
    if role == 0 and first:
        for i in range(count):
            phi[i] = s[i]
    elif role == 0:
        for i in range(count):
            phi[i] = phi[i] + s[i]
    elif role > 0 and first:
        for i in range(count):
            phi[i] = s[i] - o[i]
    elif role > 0:
        for i in range(count):
            phi[i] = phi[i] + (s[i] - o[i])
    elif first:
        for i in range(count):
            phi[i] = -(s[i] - o[i])
    else:
        for i in range(count):
            phi[i] = phi[i] - (s[i] - o[i])


@part_of_kernels
def step(first: bool, phi: int, eta: float, count: int, out: int) -> None:
    """Write η·φ, or add it to what is there."""
    p, c = f32_at(phi), f32_at(out)
    if first:
        for i in range(count):
            c[i] = p[i] * eta
    else:
        for i in range(count):
            c[i] = c[i] + p[i] * eta


@part_of_kernels
def fill(value: float, count: int, out: int) -> None:
    """Write one value everywhere."""
    row = f32_at(out)
    for i in range(count):
        row[i] = value


@part_of_kernels
def vote(by_count: bool, phi: int, eta: float, count: int, out: int) -> None:
    """Add a step η·φ, or its sign, to the votes."""
    p, votes = f32_at(phi), f32_at(out)
    for i in range(count):
        value = np.float32(p[i] * eta)
        if by_count:
            up = np.float32(1.0) if value > ZERO else ZERO
            value = np.float32(-1.0) if value < ZERO else up
        votes[i] = votes[i] + value


@part_of_kernels
def add_elected(votes: int, phi: int, eta: float, count: int, out: int) -> None:
    """Add those elements of η·φ that have the elected sign; what is not finite makes NaN."""
    v, p, kept = f32_at(votes), f32_at(phi), f32_at(out)
    for i in range(count):
        value = np.float32(p[i] * eta)
        same = value > ZERO if v[i] >= ZERO else value < ZERO
        odd = np.uint32(bits_of(value) & INFINITE) == INFINITE
        taken = value if same else ZERO
        kept[i] = kept[i] + (np.float32(np.nan) if odd else taken)


@part_of_kernels
def land(origin: int, count: int, change: int) -> int:
    """Make a change base + change; return the bits of the largest size among the results.

    Where the change is zero the base's own bits stay: adding +0 would turn −0 into +0.
    """
    o, c = f32_at(origin), f32_at(change)
    largest = np.uint32(0)
    for i in range(count):
        moved = np.float32(o[i] + c[i])
        value = o[i] if c[i] == ZERO else moved
        c[i] = value
        largest = max(largest, np.uint32(bits_of(value) & SIZE))
    return largest


@part_of_kernels
def keep_base(origin: int, keep: bool, count: int, row: int) -> int:
    """Return how many values of a row are not finite; put the base's there if asked to ``keep`` it."""
    o, r, bits = f32_at(origin), f32_at(row), u32_at(row)
    found = 0
    for i in range(count):
        if np.uint32(bits[i] & INFINITE) == INFINITE:
            found += 1
            if keep:
                r[i] = o[i]
    return found


@part_of_kernels
def put_doubles(base: int, origin: int, row: int, count: int, out: int) -> None:
    """Write a row as float64, and the base's own float64 where the row holds the base's float32."""
    b, o, r, result = f64_at(base), f32_at(origin), f32_at(row), f64_at(out)
    for i in range(count):
        result[i] = b[i] if r[i] == o[i] else np.float64(r[i])


@part_of_kernels
def subtract(left: int, right: int, factor: float, count: int, out: int) -> None:
    """Write left − factor·right, each rounded by itself."""
    a, b, r = f32_at(left), f32_at(right), f32_at(out)
    for i in range(count):
        r[i] = a[i] - np.float32(b[i] * factor)


@part_of_kernels
def sparsify(row: int, threshold: int, ties: int, count: int) -> int:
    """Set to zero all that is smaller than a threshold; return how many equal to it may still stay."""
    r, bits = f32_at(row), u32_at(row)
    equal = 0
    for i in range(count):
        equal += np.uint32(bits[i] & SIZE) == np.uint32(threshold)
    if equal <= ties:
        for i in range(count):
            r[i] = r[i] if np.uint32(bits[i] & SIZE) >= np.uint32(threshold) else ZERO
        return ties - equal
    for i in range(count):
        size = np.uint32(bits[i] & SIZE)
        if size == np.uint32(threshold) and ties > 0:
            ties -= 1
        elif size <= np.uint32(threshold):
            r[i] = ZERO
    return ties
