"""What the merge of one tensor is made of: each preference with its inputs, and the controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pv_merge.arithmetic.choices import (
    Interference,
    NotFinite,
    RoundingMode,
    SignConsensus,
    refuse_unknown,
)

if TYPE_CHECKING:
    from torch import Tensor

Transform = Callable[["Tensor"], "Tensor"]
"""What a further control makes of a whole φ (float32, any shape); it may not change its input."""

Part = TypeVar("Part")
Other = TypeVar("Other")


@dataclass(frozen=True)
class PreferenceInputs(Generic[Part]):
    """One preference's tensors of one name, all of one shape, and how strongly they count.

    ``Part`` is what it holds: a tensor, or a place from which it is still to be read.
    """

    name: str
    eta: float
    """Merge-time coefficient η; any sign."""
    positives: tuple[Part, ...] = ()
    """Weights θ+ of positive policies."""
    negatives: tuple[Part, ...] = ()
    """Weights θ− of negative policies."""
    vectors: tuple[Part, ...] = ()
    """Vectors that were extracted before, as they are (no base in them)."""
    density: float = 1.0
    """Fraction of φ's elements to keep, the largest in magnitude."""
    max_relative_norm: float | None = None
    """Upper bound on ‖η·φ‖ / ‖base‖ of this tensor."""
    transforms: tuple[Transform, ...] = ()
    """Further controls of φ, applied in this order after ``density``."""

    @property
    def moves(self) -> bool:
        """Whether it has any input and an eta that is not 0."""
        return self.eta != 0 and bool(self.positives or self.negatives or self.vectors)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that it holds: positives first, then negatives, then vectors."""
        return self.positives + self.negatives + self.vectors

    def flat(self: PreferenceInputs[Tensor]) -> PreferenceInputs[Tensor]:
        """Return the same with every tensor in one dimension."""
        return self.mapped(lambda tensor: tensor.reshape(-1))

    def window(
        self: PreferenceInputs[Tensor], window: slice[int, int, int]
    ) -> PreferenceInputs[Tensor]:
        """Return the same with a part of every (flat) tensor."""
        return self.mapped(lambda tensor: tensor[window])

    def mapped(self, change: Callable[[Part], Other]) -> PreferenceInputs[Other]:
        """Return the same with every part replaced: positives first, then negatives, then vectors."""
        return self.holding(
            tuple(change(part) for part in self.positives),
            tuple(change(part) for part in self.negatives),
            tuple(change(part) for part in self.vectors),
        )

    def holding(
        self,
        positives: tuple[Other, ...] = (),
        negatives: tuple[Other, ...] = (),
        vectors: tuple[Other, ...] = (),
    ) -> PreferenceInputs[Other]:
        """Return the same preference with other parts altogether."""
        return PreferenceInputs(
            self.name,
            self.eta,
            positives,
            negatives,
            vectors,
            self.density,
            self.max_relative_norm,
            self.transforms,
        )


@dataclass(frozen=True)
class Controls:
    """What is decided once for a whole merge."""

    sign_consensus: SignConsensus = "none"
    interference: Interference = "none"
    rounding: RoundingMode = "stochastic"
    seed: int = 0
    """Seed of the noise of stochastic rounding."""
    not_finite: NotFinite = "refuse"

    def __post_init__(self) -> None:
        refuse_unknown("sign_consensus", self.sign_consensus, SignConsensus)
        refuse_unknown("interference", self.interference, Interference)
        refuse_unknown("rounding", self.rounding, RoundingMode)
        refuse_unknown("not_finite", self.not_finite, NotFinite)
