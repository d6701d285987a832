"""What an extraction measures on its way: inner products of the two sides' deltas, added up."""

from __future__ import annotations

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import DTYPE_NAMES
from pv_merge.arithmetic.measures import square_sum
from pv_merge.arithmetic.rounding_noise import DIGITS, noise_share, rounding_noise, stride


class Sums:
    """Sums over weights, of one extraction."""

    def __init__(self) -> None:
        self.positive = self.negative = self.both = self.phi = self.lost = self.noise = 0.0
        self.moved = 0

    def add(
        self,
        positive: Tensor | None,
        negative: Tensor | None,
        phi: Tensor | None,
        stored: list[Tensor],
    ) -> None:
        """Add one weight: θ+ − base, θ− − base, φ, and θ± as they are stored in full."""
        if positive is not None:
            self.positive += square_sum(positive)
        if negative is not None:
            self.negative += square_sum(negative)
        if positive is not None and negative is not None:
            self.both += square_sum(positive, negative)
        if phi is not None:
            square = square_sum(phi)
            self.phi += square
            self.moved += square > 0
            self.noise += _noise(phi, stored)

    def measures(self) -> dict[str, float | int]:
        """Return what a manifest says; of rounding noise only where there is some."""
        scale = (self.positive * self.negative) ** 0.5
        found: dict[str, float | int] = {
            "norm": self.phi**0.5,
            "norm_positive": self.positive**0.5,
            "norm_negative": self.negative**0.5,
            "cosine_positive_negative": self.both / scale if scale else 0.0,
            "tensors_moved": self.moved,
        }
        noise = {"rounding_noise": noise_share(self.noise, self.phi)} if self.noise else {}
        return found | noise


def _noise(phi: Tensor, stored: list[Tensor]) -> float:
    """Return the expected Σ error² of φ that comes from sides stored in 16 bits."""
    narrow = [side for side in stored if DTYPE_NAMES[side.dtype] in DIGITS]
    if not narrow or not phi.numel():
        return 0.0
    every = stride(phi.numel())
    seen, weights = (part.flatten()[::every].to(torch.float32) for part in (phi, narrow[0]))
    dtype = DTYPE_NAMES[narrow[0].dtype]
    return rounding_noise(seen.numpy(), weights.numpy(), dtype, len(narrow)) * phi.numel()
