"""How much of φ is the rounding of policies that were stored in 16 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pv_merge.arithmetic.measures import square_sum

DIGITS = {torch.bfloat16: 8, torch.float16: 11}
"""Bits of a significand, the implicit one included."""
SMALLEST = {torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
"""The spacing at zero."""
NOTICEABLE = 0.02
"""Share of ‖φ‖ from which on rounding noise is worth a line."""


def spacing(weights: Tensor) -> Tensor:
    """Return the distance from each weight to the next in its dtype (float16 or bfloat16), in float32."""
    _, exponent = torch.frexp(weights.float())
    step = torch.ldexp(
        torch.ones_like(exponent, dtype=torch.float32), exponent - DIGITS[weights.dtype]
    )
    return step.clamp_min(SMALLEST[weights.dtype])


def rounding_noise(difference: Tensor, *stored: Tensor) -> float:
    """Return the expected Σ error² of ``difference`` that comes from how its parts were stored.

    ``difference`` is θ+ − θ− of one weight, or θ± − base; ``stored`` are the one or two of its parts
    that were rounded to 16 bits when they were saved (others are ignored). A part that was rounded
    has an error of variance ulp²/12 where the change is large against the spacing ulp. Where it is
    small, rounding either swallows it or makes a whole step of it: of a change d, in steps, the
    error is f(1 − f) with f the fraction of d, which for a Gaussian d of mean size μ is
    μ − (π/2)μ². μ is what is seen, since the expected size of a rounded change is its size.
    """
    narrow = [part for part in stored if part.dtype in DIGITS]
    if not narrow or difference.numel() == 0:
        return 0.0
    step = spacing(narrow[0])
    mean = float((difference.abs() / step).double().mean())
    most = len(narrow) / 12
    share = mean - math.pi / 2 * mean**2 if mean < 1 / math.pi else most
    return square_sum(step) * min(share, most)


def noise_share(noise: float, square: float) -> float:
    """Return which share of a measured ‖φ‖ is noise, at most 1, of Σ error² and ‖φ‖²."""
    return min(1.0, math.sqrt(noise / square)) if square > 0 else 0.0


def noise_warning(share: float, what: str) -> str | None:
    """Return the line for a share of noise that is worth one."""
    if share < NOTICEABLE:
        return None
    return (
        f"about {share:.0%} of ‖φ‖ of {what} is rounding noise of policies stored in 16 bits; use "
        "policies in float32, or the adapters that were merged into them"
    )
