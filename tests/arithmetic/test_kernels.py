"""Fused kernels and the readable reference in torch: the same bits, whatever is asked of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pv_merge.arithmetic import fused, noise, surveys
from pv_merge.arithmetic.blocks import merge_in_torch
from pv_merge.arithmetic.kernel_shape import BLOCK, ROW
from pv_merge.arithmetic.measures import square_sum, square_sum_in_torch
from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.terms import Controls, PreferenceInputs
from pv_merge.arithmetic.views import merge_tensor, products
from pv_merge.errors import PvMergeError

STORED = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

SPECIAL = torch.tensor(
    [
        *(0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan")),
        *(1e-40, -1e-40, 1e-45, 2.0**-14, 2.0**-24, 2.0**-25, 6e-8, 3.38e38, 3.4e38, -3.4e38),
        *(65504.0, 65519.0, 65520.0, 65536.0, 1 + 2.0**-8, 1 + 2.0**-9, 1 + 3 * 2.0**-9),
    ]
)


def same(left: Tensor, right: Tensor) -> bool:
    """Equal bits, or both NaN: what a NaN's other bits are, processors do not agree on."""
    kind = BITS[left.element_size()]
    nan = left.isnan() & right.isnan()
    return left.dtype == right.dtype and bool(((left.view(kind) == right.view(kind)) | nan).all())


def values(generator: torch.Generator, size: int, kind: str, dtype: torch.dtype) -> Tensor:
    """Weights of an ordinary size; few different ones, with ties; or any bit pattern and the odd ones."""
    if kind == "weights":
        found = torch.randn(size, generator=generator) * 0.02
    elif kind == "ties":
        found = torch.randint(-3, 4, (size,), generator=generator).float()
    else:
        words = torch.randint(-(2**31), 2**31, (size,), generator=generator).to(torch.int32)
        scale = 2.0 ** torch.randint(-30, 17, (size,), generator=generator)
        some = SPECIAL[torch.randint(0, len(SPECIAL), (size,), generator=generator)]
        which = torch.randint(0, 3, (size,), generator=generator)
        ordinary = torch.randn(size, generator=generator) * scale
        found = torch.where(which == 0, words.view(torch.float32), ordinary)
        found = torch.where(which == 1, some, found)
    return found.to(dtype)


@st.composite
def merges(draw: st.DrawFn) -> dict[str, Any]:
    """A tensor's merge: any number of preferences and policies, dtypes, controls and odd values."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**9)))
    size = draw(st.sampled_from([1, 7, 1000, ROW, ROW + 1, 3 * ROW + 5]))
    kind = draw(st.sampled_from(["weights", "ties", "odd"]))
    dtype = st.sampled_from(STORED)

    def tensors(most: int) -> tuple[Tensor, ...]:
        count = draw(st.integers(0, most))
        return tuple(values(generator, size, kind, draw(dtype)) for _ in range(count))

    one_dtype = draw(st.booleans())
    base = values(generator, size, kind, draw(dtype))
    preferences = []
    for number in range(draw(st.integers(0, 3))):
        parts = [tensors(2), tensors(2), tensors(1)]
        if one_dtype:
            parts = [tuple(part.to(base.dtype) for part in group) for group in parts]
        preferences.append(
            PreferenceInputs(
                str(number),
                draw(st.floats(-3, 3).filter(bool)),
                *parts,
                density=draw(st.sampled_from([1.0, 1.0, 0.5, 0.9, 0.01])),
                max_relative_norm=draw(st.sampled_from([None, None, 0.1, 10.0])),
            )
        )
    controls = Controls(
        draw(st.sampled_from(["none", "sum", "count"])),
        draw(st.sampled_from(["none", "none", "orthogonal"])),
        draw(st.sampled_from(["stochastic", "nearest"])),
        draw(st.integers(0, 5)),
    )
    return {
        "base": base,
        "preferences": preferences,
        "controls": controls,
        "dtype": draw(dtype),
        "name": draw(st.sampled_from(["w", "layer.0"])),
    }


@settings(max_examples=400, deadline=None)
@given(merges())
def test_kernels_equal_the_reference(case: dict[str, Any]) -> None:
    expected = merge_in_torch(**case)
    out = torch.empty_like(expected)
    merge_tensor(case["base"], case["preferences"], case["controls"], case["name"], out)
    assert same(out, expected)


def test_every_float16_is_read_and_written() -> None:
    words = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    halves = words.view(torch.float16)
    wide, back = torch.empty(1 << 16), torch.empty(1 << 16, dtype=torch.float16)
    merge_tensor(halves, [], Controls(), "w", wide)
    merge_tensor(wide, [], Controls(rounding="nearest"), "w", back)
    assert same(wide, halves.float())
    assert same(back, halves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(4))
def test_any_float32_is_rounded_to_nearest_as_torch_does(dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(2**31), 2**31, (200_000,), generator=generator).to(torch.int32)
    out = torch.empty(200_000, dtype=dtype)
    merge_tensor(words.view(torch.float32), [], Controls(rounding="nearest"), "w", out)
    assert same(out, words.view(torch.float32).to(dtype))


EVERYTHING: dict[str, Any] = {"density": 0.3, "max_relative_norm": 0.05}


@pytest.mark.parametrize("said", [{}, {"max_relative_norm": 0.05}, EVERYTHING], ids=str)
@pytest.mark.parametrize("stored", STORED)
def test_tensors_of_several_windows(stored: torch.dtype, said: dict[str, Any]) -> None:
    # Ties across the windows, and threads that take them in any order.
    generator = torch.Generator().manual_seed(3)
    size = 2 * BLOCK + 12345
    base = values(generator, size, "weights", stored)
    preferences = [
        PreferenceInputs(name, eta, (values(generator, size, "ties", stored),), (), (), **said)
        for name, eta in (("a", 0.5), ("b", -0.25))
    ]
    controls = Controls(sign_consensus="sum", interference="orthogonal", seed=1)
    expected = merge_in_torch(base, preferences, controls, dtype=torch.bfloat16, name="w")
    for threads in (1, 2, 5):
        out = torch.empty_like(expected)
        merge_tensor(base, preferences, controls, "w", out, threads)
        assert same(out, expected), threads


@pytest.mark.parametrize("step", [ROW, 5 * ROW])
def test_the_size_of_windows_does_not_show(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    base, first, second = (values(generator, 20_000, "ties", torch.float32) for _ in range(3))
    preferences = [
        PreferenceInputs("a", 0.5, (first,), **EVERYTHING),
        PreferenceInputs("b", 0.25, (), (second,), **EVERYTHING),
    ]
    controls = Controls(interference="orthogonal")
    expected = merge(base, preferences, controls, dtype=torch.float16, name="w")
    monkeypatch.setattr(fused, "STEP", step)
    monkeypatch.setattr(surveys, "STEP", step)
    assert same(merge(base, preferences, controls, dtype=torch.float16, name="w"), expected)


@given(st.integers(0, 10**6), st.sampled_from([1, 1000, ROW + 3, 3 * BLOCK + 17]))
@settings(max_examples=20, deadline=None)
def test_sums_equal_the_reference(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = values(generator, size, "weights", torch.bfloat16)
    right = values(generator, size, "weights", torch.float32)
    expected = [square_sum_in_torch(left), square_sum_in_torch(left, right)]
    assert products([left, right], [(0, 0), (0, 1)]) == expected
    assert [square_sum(left), square_sum(left, right)] == expected


# ---- what is not finite --------------------------------------------------------------------------


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("rule", ["none", "sum", "count"])
@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_what_is_not_finite_is_refused_by_name(rule: Any, density: float, odd: float) -> None:
    good = tensor(1.0, 2.0, 3.0, 4.0)
    bad = tensor(1.0, odd, 3.0, 4.0)
    controls = Controls(sign_consensus=rule)
    both = PreferenceInputs("helpful", 0.5, (good,), (bad,), density=density)
    other = PreferenceInputs("polite", -0.5, (good * 2,))
    with pytest.raises(PvMergeError, match="w: a negative policy of helpful holds one value that"):
        merge(good, [both, other], controls, name="w")
    with pytest.raises(PvMergeError, match="w: the base holds one value"):
        merge(bad, [other], controls, name="w")
    vector = PreferenceInputs("helpful", 0.5, vectors=(bad,))
    with pytest.raises(PvMergeError, match="w: a vector of helpful holds"):
        merge(good, [vector, other], controls, name="w", dtype=torch.bfloat16)


def test_a_result_beyond_the_dtype_is_refused() -> None:
    up = PreferenceInputs("helpful", 2.0, vectors=(tensor(0.0, 60000.0),))
    with pytest.raises(
        PvMergeError, match="beyond the dtype it is rounded to; is an eta too large"
    ):
        merge(tensor(0.0, 1.0), [up], dtype=torch.float16, name="w")
    assert merge(tensor(0.0, 1.0), [up], dtype=torch.bfloat16).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_base_can_stay_where_something_is_not_finite(dtype: torch.dtype) -> None:
    keep = Controls(not_finite="keep_base", rounding="nearest")
    inputs = [PreferenceInputs("a", 0.5, (tensor(3.0, NAN, INF, 1e30),))]
    merged = merge(tensor(1.0, 2.0, 3.0, 4.0), inputs, keep, dtype=dtype)
    beyond = 4.0 if dtype is torch.float16 else float(torch.tensor(5e29).to(dtype))
    assert merged.tolist() == [2.0, 2.0, 3.0, beyond]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_are_refused_unless_they_are_equal_buffers(dtype: torch.dtype) -> None:
    numbers = tensor(1.0, 0.0, 1.0).to(dtype)
    same_numbers = PreferenceInputs("a", 0.5, (numbers.clone(),))
    assert torch.equal(merge(numbers, [same_numbers], dtype=dtype), numbers)
    for base, policy in (
        (numbers, tensor(1.0, 1.0, 1.0).to(dtype)),
        (numbers, numbers.float()),
        (numbers.float(), numbers),
    ):
        with pytest.raises(PvMergeError, match=r"w: an input is stored as .* whole numbers are no"):
            merge(base, [PreferenceInputs("a", 0.5, (policy,))], dtype=base.dtype, name="w")


def test_threads_share_one_ring_of_random_words(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kernels keep no more than its address: a second array would be freed under them.
    monkeypatch.setattr(noise, "_rings", {})
    together = threading.Barrier(4)

    def ask(_: int) -> int:
        together.wait()
        return int(noise.ring(16).ctypes.data)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert noise.ring(16) is noise.ring(16)
