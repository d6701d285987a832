"""How much of φ is the rounding of policies that were stored in 16 bits. Without torch."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

DIGITS = {"BF16": 8, "F16": 11}
"""Bits of a significand, the implicit one included, by safetensors' names of the narrow dtypes."""
SMALLEST = {"BF16": 2.0**-133, "F16": 2.0**-24}
"""The spacing at zero."""
SAMPLE = 1 << 16
"""Weights of one tensor that are worth looking at."""
NOTICEABLE = 0.02
"""Share of ‖φ‖ from which on rounding noise is worth a line."""


def stride(elements: int) -> int:
    """Return every how manieth weight of a tensor is looked at; odd, so that no column is met alone."""
    return (elements // SAMPLE) | 1


def spacing(weights: Array, dtype: str) -> Array:
    """Return the distance from each weight (float32) to the next in the narrow ``dtype``, in float64."""
    _, exponent = np.frexp(weights)
    step = np.where(weights == 0, 0.0, np.ldexp(1.0, exponent - DIGITS[dtype]))
    found: Array = np.maximum(step, SMALLEST[dtype])
    return found


def rounding_noise(difference: Array, weights: Array, dtype: str, rounded: int) -> float:
    """Return the mean error² of ``difference`` that comes from how its parts were stored.

    ``difference`` is θ+ − θ− of some weights, or θ± − base, in float32; ``weights`` are those of one
    part, and ``rounded`` says how many parts were rounded to the narrow ``dtype`` when they were
    saved. Each has an error of variance ulp²/12 where the change is large against the spacing ulp.
    Where it is small, rounding either swallows it or makes a whole step of it: of a change d, in
    steps, the error is f(1 − f) with f the fraction of d, which for a Gaussian d of mean size μ is
    μ − (π/2)μ². μ is what is seen, since the expected size of a rounded change is its size.
    """
    if difference.size == 0 or rounded == 0:
        return 0.0
    step = spacing(weights, dtype)
    mean = float(np.mean(np.abs(difference) / step))
    most = rounded / 12
    share = mean - math.pi / 2 * mean**2 if mean < 1 / math.pi else most
    return float(np.mean(step**2)) * min(share, most)


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
