"""The estimate of rounding noise against what rounding did, on changes of known size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pv_merge.arithmetic.rounding_noise import (
    noise_share,
    noise_warning,
    rounding_noise,
    spacing,
)

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
COUNT = 100_000


def normal(seed: int, size: float) -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed)) * size


def shares(difference: torch.Tensor, true: torch.Tensor, part: torch.Tensor, rounded: int):
    """Return (share of ‖φ‖ that is error, its estimate)."""
    square = float(difference.square().sum())
    name = next(name for name, dtype in DTYPES.items() if dtype == part.dtype)
    noise = rounding_noise(difference.numpy(), part.float().numpy(), name, rounded) * COUNT
    error = float((difference - true).square().sum())
    return min(1.0, math.sqrt(error / square)), noise_share(noise, square)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("narrow_base", [False, True])
@pytest.mark.parametrize("steps", [0.25, 1.0, 3.0, 30.0])
def test_the_estimate_is_what_rounding_does(name: str, narrow_base: bool, steps: float) -> None:
    """``steps``: the size of a change against the spacing at weights of 0.02."""
    dtype = DTYPES[name]
    size = steps * float(spacing(np.float32([0.02]), name)[0])
    base = normal(0, 0.02)
    base = base.to(dtype).float() if narrow_base else base
    up, down = normal(1, size), normal(2, size)
    positive, negative = (base + up).to(dtype), (base + down).to(dtype)
    true, found = shares(positive.float() - negative.float(), up - down, positive, 2)
    assert found == pytest.approx(true, rel=0.15 if steps >= 1 else 0.35)
    true, found = shares(positive.float() - base, up, positive, 1)
    assert found == pytest.approx(true, rel=0.15 if steps >= 1 else 0.35)


def test_spacing_is_the_distance_to_the_next_number() -> None:
    for name, dtype in DTYPES.items():
        values = torch.tensor([1.0, 1.5, 0.02, -0.02, 3e-5, 100.0]).to(dtype)
        bits = values.view(torch.int16)
        following = (bits + 1).view(dtype).float()
        step = (following - values.float()).abs().numpy()
        assert np.array_equal(spacing(values.float().numpy(), name), step)
    assert spacing(np.float32([0.0]), "F16")[0] == 2.0**-24


def test_nothing_rounded_is_no_noise() -> None:
    ones = np.ones(4, np.float32)
    assert rounding_noise(ones, ones, "BF16", 0) == 0
    assert rounding_noise(ones[:0], ones[:0], "BF16", 2) == 0
    assert noise_share(1.0, 0.0) == 0


def test_the_line() -> None:
    assert noise_warning(0.019, "helpful") is None
    line = noise_warning(0.051, "helpful")
    assert line is not None and line.startswith("about 5% of ‖φ‖ of helpful is rounding noise")
