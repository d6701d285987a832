"""Stochastic rounding, against a reference that shares no code with it: tables and integers."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.rounding import BLOCK, Rounder, RoundingMode
from pv_merge.arithmetic.terms import Controls, PreferenceInputs

BF16, F16 = torch.bfloat16, torch.float16
NARROW = [BF16, F16]


def rounded(
    values: Tensor,
    dtype: torch.dtype,
    seed: int = 0,
    name: str = "w",
    start: int = 0,
    mode: RoundingMode = "stochastic",
) -> Tensor:
    out = torch.empty(values.shape, dtype=dtype)
    Rounder(dtype, mode, seed, name).round(values.clone(), start, out)
    return out


# ---- the reference -------------------------------------------------------------------------------


@cache
def reference_ring() -> list[int]:
    """The ring of random words, with Python's own integers: rank in the mixed order, then 14 bits."""
    mask, mixed = 0xFFFFFFFF, []
    for x in range(BLOCK):
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) & mask
        x = ((x ^ (x >> 15)) * 0xD35A2D97) & mask
        mixed.append(x ^ (x >> 15))
    order = sorted(range(BLOCK), key=mixed.__getitem__)
    return [(place << 14) | (word & 0x3FFF) for place, word in zip(order, mixed, strict=True)]


def reference_words(seed: int, name: str, start: int, size: int) -> list[int]:
    """The random 32-bit word of each position; each block starts elsewhere in the ring."""
    words = []
    for position in range(start, start + size):
        block, offset = divmod(position, BLOCK)
        label = f"{seed}\0{name}\0{block}".encode()
        digest = hashlib.blake2b(label, digest_size=8).digest()
        words.append(reference_ring()[(offset + int.from_bytes(digest, "little")) % BLOCK])
    return words


def test_every_fraction_is_equally_likely() -> None:
    assert sorted(word >> 14 for word in reference_ring()) == list(range(BLOCK))


@cache
def grid(dtype: torch.dtype) -> np.ndarray:
    """Every finite, non-negative value of the dtype, ascending, in float64."""
    words = torch.arange(1 << 15, dtype=torch.int32).to(torch.int16)
    values = words.view(dtype).double().numpy()
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def reference(values: Tensor, dtype: torch.dtype, words: list[int]) -> Tensor:
    """Round up where (position between the neighbours) + (random fraction) reaches 1."""
    table = grid(dtype)
    results = []
    for value, word in zip(values.tolist(), words, strict=True):
        size = abs(value)
        if not np.isfinite(value) or size >= table[-1]:
            results.append(torch.tensor(value, dtype=torch.float32).to(dtype))
            continue
        low = int(np.searchsorted(table, size, side="right")) - 1
        part = (size - table[low]) / (table[low + 1] - table[low])  # exact: a ratio of powers of 2
        if dtype is BF16:
            up = part * 2**16 + (word >> 16) >= 2**16
        elif size >= 2.0**-14:
            up = part * 2**13 + (word >> 19) >= 2**13
        else:
            up = part * 2**24 > word >> 8
        result = torch.tensor(table[low + int(up)], dtype=torch.float64).to(dtype)
        results.append(torch.copysign(result, torch.tensor(value)).to(dtype))
    return torch.stack(results)


def any_floats(seed: int, size: int) -> Tensor:
    """Float32 values of any bit pattern, half of them of ordinary size."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(2**31), 2**31, (size,), generator=generator).to(torch.int32)
    ordinary = torch.randn(size, generator=generator) * 2.0 ** torch.randint(
        -30, 17, (size,), generator=generator
    )
    return torch.where(torch.arange(size) % 2 == 0, words.view(torch.float32), ordinary)


def same(left: Tensor, right: Tensor) -> bool:
    """Equal bits, or both NaN."""
    nan = left.isnan() & right.isnan()
    return bool(((left.view(torch.int16) == right.view(torch.int16)) | nan).all())


@pytest.mark.parametrize("dtype", NARROW)
@given(seed=st.integers(0, 10**9), start=st.sampled_from([0, 5, BLOCK - 20, 3 * BLOCK + 1]))
def test_equals_the_reference(dtype: torch.dtype, seed: int, start: int) -> None:
    values = any_floats(seed, 40)
    expected = reference(values, dtype, reference_words(seed, "layer.w", start, 40))
    assert same(rounded(values, dtype, seed, "layer.w", start), expected)


# ---- what it must do -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NARROW)
@given(seed=st.integers(0, 10**9))
def test_takes_one_of_the_two_neighbours(dtype: torch.dtype, seed: int) -> None:
    values = any_floats(seed, 200)
    values = values[values.abs() < float(grid(dtype)[-1])]
    table = grid(dtype)
    size = values.abs().double().numpy()
    low = np.searchsorted(table, size, side="right") - 1
    result = rounded(values, dtype, seed).abs().double().numpy()
    assert ((result == table[low]) | ((result == table[low + 1]) & (size > table[low]))).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_every_exact_value_stays(dtype: torch.dtype) -> None:
    words = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    exact = words.view(dtype)
    exact = exact[~exact.isnan()]  # infinities, zeros of both signs and subnormals are among them
    for seed in range(5):
        assert same(rounded(exact.float(), dtype, seed), exact)


@pytest.mark.parametrize("dtype", NARROW)
def test_by_hand(dtype: torch.dtype) -> None:
    step = float(torch.finfo(dtype).eps)  # between 1 and 2
    values = torch.full((1 << 16,), 1 + step / 4)
    result = rounded(values, dtype).float()
    assert set(result.tolist()) == {1.0, 1 + step}
    share = float((result > 1).float().mean())
    assert share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 2**16) ** 0.5)


TINY = {BF16: 2.0**-133, F16: 2.0**-24}
"""The smallest subnormal."""


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", ["normal", "subnormal", "below the smallest", "negative", "large"])
def test_unbiased_over_positions_and_seeds(dtype: torch.dtype, kind: str) -> None:
    value = {
        "normal": 0.1234567,
        "subnormal": 37.3 * TINY[dtype],
        "below the smallest": 0.2 * TINY[dtype],
        "negative": -0.0271828,
        "large": 0.77 * float(torch.finfo(dtype).max),
    }[kind]
    exact = float(torch.tensor(value))
    count, seeds = 1 << 14, 64
    results = [rounded(torch.full((count,), value), dtype, seed).double() for seed in range(seeds)]
    low, high = float(torch.stack(results).min()), float(torch.stack(results).max())
    step = high - low
    assert low < exact < high
    part = (exact - low) / step
    sigma = step * (part * (1 - part) / (count * seeds)) ** 0.5
    assert abs(float(torch.stack(results).mean()) - exact) < 5 * sigma
    # And so for each position by itself, over seeds.
    by_position = torch.stack(
        [rounded(torch.full((32,), value), dtype, s).double() for s in range(4000)]
    )
    sigma = step * (part * (1 - part) / 4000) ** 0.5
    assert float((by_position.mean(0) - exact).abs().max()) < 5 * sigma


@pytest.mark.parametrize("dtype", NARROW)
def test_positions_and_seeds_are_not_correlated(dtype: torch.dtype) -> None:
    values = torch.full((1 << 14,), 1 + float(torch.finfo(dtype).eps) / 2)
    ups = [(rounded(values, dtype, seed, name) > 1).double() for seed in (0, 1) for name in "ab"]
    for left in range(4):
        shifted = torch.corrcoef(torch.stack([ups[left][1:], ups[left][:-1]]))[0, 1]
        assert abs(float(shifted)) < 5 / 2**7
        for right in range(left):
            assert abs(float(torch.corrcoef(torch.stack([ups[left], ups[right]]))[0, 1])) < 5 / 2**7


@pytest.mark.parametrize("dtype", NARROW)
def test_specials(dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    values = torch.tensor([0.0, -0.0, inf, -inf, nan])
    payloads = torch.tensor(
        [0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000], dtype=torch.int32
    )  # NaN whose bits would carry into the sign, among them
    values = torch.cat([values, payloads.view(torch.float32)])
    for seed in range(50):
        result = rounded(values, dtype, seed)
        assert result[:4].tolist() == [0.0, -0.0, inf, -inf]
        assert torch.signbit(result[:4]).tolist() == [False, True, False, True]
        assert result[4:].isnan().all()


@pytest.mark.parametrize("dtype", NARROW)
def test_specials_do_not_disturb_their_neighbours(dtype: torch.dtype) -> None:
    values = any_floats(1, 64)
    values = torch.where(values.abs() < 60000, values, torch.ones(64))
    mixed = values.clone()
    mixed[::8] = float("nan")
    mixed[1::8] = float("inf")
    mixed[2::8] = 3.4e38
    plain, disturbed = rounded(values, dtype), rounded(mixed, dtype)
    untouched = torch.arange(64) % 8 > 2
    assert torch.equal(plain[untouched], disturbed[untouched])


@pytest.mark.parametrize("dtype", NARROW)
def test_beyond_the_largest_it_rounds_to_nearest(dtype: torch.dtype) -> None:
    table = grid(dtype)
    largest, step = float(table[-1]), float(table[-1] - table[-2])
    below = np.nextafter(np.float32(largest + step / 2), np.float32(0))
    values = torch.tensor(
        [largest, largest + step / 4, float(below), largest + step / 2, largest + step, 3.4e38]
    )
    for sign in (1, -1):
        for seed in range(20):
            result = rounded(values * sign, dtype, seed)
            assert torch.equal(result, (values * sign).to(dtype))
    assert rounded(values, dtype).isinf().tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("dtype", NARROW)
def test_just_below_the_largest_it_never_overflows(dtype: torch.dtype) -> None:
    table = grid(dtype)
    value = torch.full((4096,), float(table[-1] * 0.75 + table[-2] * 0.25))
    assert set(rounded(value, dtype).double().tolist()) == {table[-2], table[-1]}


def test_float16_around_its_smallest_normal() -> None:
    step = 2.0**-24
    values = torch.tensor([2.0**-14 - step / 2, 2.0**-14 + step / 2]).repeat(500)
    result = rounded(values, F16).double()
    assert set(result[::2].tolist()) == {2.0**-14 - step, 2.0**-14}
    assert set(result[1::2].tolist()) == {2.0**-14, 2.0**-14 + step}


# ---- reproducible --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("cut", [1, 13, 1000, BLOCK - 1, BLOCK])
def test_cutting_does_not_show(dtype: torch.dtype, cut: int) -> None:
    size = BLOCK + 1500 if cut > 500 else 300
    offset = BLOCK - 100
    values = any_floats(3, size)
    whole = rounded(values, dtype, 7, "w", offset)
    parts = [
        rounded(values[at : at + cut], dtype, 7, "w", offset + at) for at in range(0, size, cut)
    ]
    assert same(whole, torch.cat(parts))


@pytest.mark.parametrize("dtype", NARROW)
def test_thread_count_does_not_show(dtype: torch.dtype) -> None:
    values = any_floats(4, BLOCK + 1500)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rounded(values, dtype)
        torch.set_num_threads(4)
        four = rounded(values, dtype)
    finally:
        torch.set_num_threads(before)
    assert same(one, four)


@pytest.mark.parametrize("dtype", NARROW)
def test_seed_name_and_position_all_count(dtype: torch.dtype) -> None:
    values = torch.full((512,), 1 + float(torch.finfo(dtype).eps) / 2)
    first = rounded(values, dtype, 0, "a")
    assert torch.equal(first, rounded(values, dtype, 0, "a"))
    for other in (
        rounded(values, dtype, 1, "a"),
        rounded(values, dtype, 0, "b"),
        rounded(values, dtype, 0, "a", BLOCK),
        rounded(values, dtype, 10, "1a"),
    ):
        assert 0.3 < float((first == other).float().mean()) < 0.7


def test_the_noise_is_fixed_for_good() -> None:
    # Written down, so that a merge of today can be made again with a later version.
    values = torch.full((12,), 1.00390625)  # half way between 1 and 1.0078125
    ups = (rounded(values, BF16, 0, "model.norm.weight") > 1).int().tolist()
    words = reference_words(0, "model.norm.weight", 0, 12)
    assert ups == [word >> 31 for word in words]
    assert words[:3] == [2778287230, 1948193543, 2937775809]


def test_nearest_is_a_plain_cast() -> None:
    values = any_floats(5, 1000)
    for dtype in NARROW:
        assert same(rounded(values, dtype, mode="nearest"), values.to(dtype))


def test_float32_is_left_alone() -> None:
    values = any_floats(6, 100)
    assert torch.equal(rounded(values, torch.float32).view(torch.int32), values.view(torch.int32))


# ---- in a merge ----------------------------------------------------------------------------------


def test_a_small_preference_survives_bfloat16() -> None:
    base = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).mul(0.02).to(BF16)
    phi = torch.randn(1 << 16, generator=torch.Generator().manual_seed(1)) * 3e-5
    kept = {}
    for mode in ("stochastic", "nearest"):
        controls = Controls(rounding=mode)
        merged = merge(base, [PreferenceInputs("p", 0.1, vectors=(phi,))], controls, dtype=BF16)
        change = merged.double() - base.double()
        kept[mode] = float((change * phi.double()).sum() / (0.1 * phi.double() ** 2).sum())
    assert kept["stochastic"] == pytest.approx(1.0, abs=0.15)
    assert kept["nearest"] < 0.2


@pytest.mark.parametrize("dtype", NARROW)
def test_merging_zero_rounds_only_what_is_wider(dtype: torch.dtype) -> None:
    wide = torch.full((4096,), 1 + float(torch.finfo(dtype).eps) / 2)
    assert set(merge(wide, [], dtype=dtype, name="w").float().tolist()) == {
        1.0,
        1 + float(torch.finfo(dtype).eps),
    }
