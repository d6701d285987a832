"""Low-rank changes as they are taken up weight by weight, and how much truncation lost of them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, low_rank_dot, truncated, truncated_product
from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.weight_names import is_linear


class Truncation:
    """Collects the low-rank change of each weight, of ``rank``, or keeping ``energy`` of its ‖φ‖².

    Without either everything is kept, and only changes that are low-rank already are taken.
    """

    def __init__(self, rank: int | None = None, energy: float | None = None) -> None:
        self.rank, self.energy = rank, energy
        self.changes: dict[str, LowRank] = {}
        """By the weight's name; every scale is 1."""
        self.left_out: list[str] = []
        """Weights that move and that no LoRA layer holds, such as norms; lost as a whole."""
        self._square = self._lost = 0.0

    @property
    def relative_error(self) -> float:
        """‖what was lost‖ / ‖φ‖ over all weights; 0 where nothing was truncated."""
        return (self._lost / self._square) ** 0.5 if self._square > 0 else 0.0

    def take_dense(self, name: str, phi: Tensor) -> None:
        """Take a whole weight's change, float32, (out, in) where it is a matrix."""
        square = square_sum(phi)
        self._square += square
        if is_linear(name, phi):
            a, b = truncated(phi, self.rank, self.energy)
            self.changes[name] = LowRank(a, b, 1.0)
            self._lost += square_sum(phi - b @ a)
        else:
            self.left_out.append(name)
            self._lost += square

    def take(self, name: str, change: LowRank) -> None:
        """Take a low-rank change of scale 1, cut to the rank if it has more."""
        if self.rank is not None:
            self._square += low_rank_dot(change.a, change.b, change.a, change.b)
            if change.a.shape[0] > self.rank:
                a, b, away = truncated_product(change.a, change.b, self.rank)
                change = replace(change, a=a, b=b)
                self._lost += away
        self.changes[name] = change
