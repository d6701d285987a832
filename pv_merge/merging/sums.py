"""What an extraction measures on its way: inner products of the two sides' deltas, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import DTYPE_NAMES
from pv_merge.arithmetic.measures import square_sum
from pv_merge.arithmetic.rounding_noise import DIGITS, noise_share, rounding_noise, stride
from pv_merge.merging.policy_pair import Deltas


class VectorMeasures(TypedDict):
    """Norms of a vector and its two sides."""

    norm: float
    norm_positive: float
    norm_negative: float
    cosine_positive_negative: float
    tensors_moved: int
    rounding_noise: NotRequired[float]
    """Share of ‖φ‖ that comes from sides stored in 16 bits; only where there is some."""


class Sums:
    """Sums over weights, of one extraction."""

    def __init__(self) -> None:
        self.positive = self.negative = self.both = self.phi = self.noise = 0.0
        self.moved = 0

    def add(self, deltas: Deltas) -> None:
        """Add one weight."""
        if deltas.positive is not None:
            self.positive += square_sum(deltas.positive)
        if deltas.negative is not None:
            self.negative += square_sum(deltas.negative)
        if deltas.positive is not None and deltas.negative is not None:
            self.both += square_sum(deltas.positive, deltas.negative)
        if deltas.phi is not None:
            square = square_sum(deltas.phi)
            self.phi += square
            self.moved += square > 0
            self.noise += _noise(deltas.phi, deltas.stored)

    def measures(self) -> VectorMeasures:
        """Return what a manifest says; of rounding noise only where there is some."""
        scale = (self.positive * self.negative) ** 0.5
        found: VectorMeasures = {
            "norm": self.phi**0.5,
            "norm_positive": self.positive**0.5,
            "norm_negative": self.negative**0.5,
            "cosine_positive_negative": self.both / scale if scale else 0.0,
            "tensors_moved": self.moved,
        }
        if self.noise:
            found["rounding_noise"] = noise_share(self.noise, self.phi)
        return found


def _noise(phi: Tensor, stored: Sequence[Tensor]) -> float:
    """Return the expected Σ error² of φ that comes from sides stored in 16 bits."""
    narrow = [side for side in stored if DTYPE_NAMES[side.dtype] in DIGITS]
    if not narrow or not phi.numel():
        return 0.0
    every = stride(phi.numel())
    seen, weights = (part.flatten()[::every].to(torch.float32) for part in (phi, narrow[0]))
    dtype = DTYPE_NAMES[narrow[0].dtype]
    return rounding_noise(seen.numpy(), weights.numpy(), dtype, len(narrow)) * phi.numel()
