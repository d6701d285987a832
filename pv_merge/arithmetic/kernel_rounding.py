"""How rows reach a narrower dtype in kernels: to nearest, or stochastically.

The rules, and the noise, are those of ``pv_merge.arithmetic.rounding``.
"""

from __future__ import annotations

import numpy as np

from pv_merge.arithmetic.compiling import f32_at, f64_at, part_of_kernels, u16_at, u32_at
from pv_merge.arithmetic.kernel_rows import (
    BF16,
    F16,
    F64,
    INFINITE,
    SIGN,
    SIZE,
    bits_of,
    float_of,
    from_float16,
)

FITS_BFLOAT16 = np.uint32(0x7F7F0000)
"""The largest float32 that bfloat16 has, too."""
_FITS_FLOAT16 = np.uint32(0x477FE000)
_UPPER = np.uint32(0xFFFF0000)
_NAN = np.uint32(0x7FC00000)
_HALF_NAN = np.uint32(0x7E00)
_HALF_INFINITE = np.uint32(0x7C00)
_HALF_LARGEST = np.uint32(0x7BFF)
_HALF_OVERFLOW = np.uint32(0x477FF000)
"""65520: half a step beyond the largest float16, where only infinity is left."""
_HALF_NORMAL = np.uint32(0x38800000)
"""2^-14, the smallest normal float16."""
_STEPS = np.float32(2.0**24)
_MAGIC = np.uint32(126 << 23)
"""0.5: added to a value below 2^-14, float32's own rounding is float16's."""


@part_of_kernels
def nearest_bfloat16(bits: int) -> int:
    """Return the bits of the nearest value, ties to even, as float32."""
    even = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + even) & _UPPER
    return _NAN if np.uint32(bits & SIZE) > INFINITE else np.uint32(rounded)


@part_of_kernels
def nearest_float16(bits: int) -> int:
    """Return float16's bits of the nearest value, ties to even."""
    size = np.uint32(bits & SIZE)
    sign = np.uint32((bits & SIGN) >> np.uint32(16))
    odd = np.uint32((size >> np.uint32(13)) & np.uint32(1))
    shifted = np.uint32(size - np.uint32((112 << 23) - 0xFFF))
    normal = np.uint32(np.uint32(shifted + odd) >> np.uint32(13))
    lent = float_of(size) + np.float32(0.5)
    small = np.uint32(bits_of(lent) - _MAGIC)
    usual = small if size < _HALF_NORMAL else normal
    beyond = _HALF_NAN if size > INFINITE else _HALF_INFINITE
    return np.uint32((beyond if size >= _HALF_OVERFLOW else usual) | sign)


@part_of_kernels
def stochastic_float16(bits: int, word: int) -> int:
    """Return float16's bits, by a random word of 24 bits."""
    size = np.uint32(bits & SIZE)
    sign = np.uint32((bits & SIGN) >> np.uint32(16))
    raised = np.uint32(size + np.uint32(word >> np.uint32(11)))
    normal = np.uint32(np.uint32(raised >> np.uint32(13)) - np.uint32(112 << 10))
    normal = min(normal, _HALF_LARGEST)
    # Below the normal range the values are 2^-24 apart; clamped, since a larger one is not used.
    steps = np.float32(float_of(min(size, _HALF_NORMAL)) * _STEPS)
    whole = np.int32(steps)
    part = np.float32(np.float32(steps - np.float32(whole)) * _STEPS)
    small = np.uint32(whole + (np.int32(1) if part > np.float32(word) else np.int32(0)))
    usual = small if size < _HALF_NORMAL else normal
    beyond = _HALF_NAN if size > INFINITE else _HALF_INFINITE
    return np.uint32((beyond if size >= _HALF_OVERFLOW else usual) | sign)


@part_of_kernels
def cut_to_bfloat16(row: int, noise: int, origin: int, count: int, out: int) -> None:
    """Round a row whose sizes are all in range stochastically into ``out``; leave out − base in it.

    The usual case, in one go: 16 random bits are added below bfloat16's last one, and cut off.
    """
    bits, values, words = u32_at(row), f32_at(row), u16_at(noise)
    o, result = f32_at(origin), u16_at(out)
    for i in range(count):
        raised = np.uint32(bits[i] + np.uint32(words[i]))
        result[i] = np.uint16(raised >> np.uint32(16))
        values[i] = float_of(raised & _UPPER) - o[i]


@part_of_kernels
def to_grid(code: int, stochastic: bool, row: int, noise: int, count: int) -> None:
    """Round a row in place to values that the dtype has."""
    bits = u32_at(row)
    if code == BF16 and stochastic:
        words = u16_at(noise)
        for i in range(count):
            raised = np.uint32(np.uint32(bits[i] + np.uint32(words[i])) & _UPPER)
            usual = np.uint32(bits[i] & SIZE) <= FITS_BFLOAT16
            bits[i] = raised if usual else nearest_bfloat16(bits[i])
    elif code == BF16:
        for i in range(count):
            bits[i] = nearest_bfloat16(bits[i])
    elif code == F16 and stochastic:
        wide, values = u32_at(noise), f32_at(row)
        for i in range(count):
            values[i] = from_float16(stochastic_float16(bits[i], wide[i]))
    elif code == F16:
        values = f32_at(row)
        for i in range(count):
            values[i] = from_float16(nearest_float16(bits[i]))


@part_of_kernels
def largest_size(row: int, count: int) -> int:
    """Return the bits of the largest size in a row; infinity's, or more, where one is not finite."""
    bits, largest = u32_at(row), np.uint32(0)
    for i in range(count):
        largest = max(largest, np.uint32(bits[i] & SIZE))
    return largest


@part_of_kernels
def put(code: int, row: int, count: int, out: int) -> None:
    """Write a row in a stored dtype, to nearest."""
    bits, values = u32_at(row), f32_at(row)
    if code == BF16:
        halves = u16_at(out)
        for i in range(count):
            halves[i] = np.uint16(nearest_bfloat16(bits[i]) >> np.uint32(16))
    elif code == F16:
        halves = u16_at(out)
        for i in range(count):
            halves[i] = np.uint16(nearest_float16(bits[i]))
    elif code == F64:
        wide = f64_at(out)
        for i in range(count):
            wide[i] = np.float64(values[i])
    else:
        plain = f32_at(out)
        for i in range(count):
            plain[i] = values[i]


@part_of_kernels
def limit(code):
    """Return the bits of the largest float32 that cannot become infinite in a dtype."""
    if code == BF16:
        return FITS_BFLOAT16
    return _FITS_FLOAT16 if code == F16 else INFINITE - np.uint32(1)
