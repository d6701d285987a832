"""What each slider may reach, and what a recipe says with the sliders where they are."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from pv_merge.recipe.recipe import Recipe

REACH = 2.0
"""η that a slider reaches on either side, if the recipe's own is not farther."""
STEP = 0.05


@dataclass(frozen=True)
class SliderRange:
    """One preference's slider."""

    name: str
    lowest: float
    highest: float
    eta: float
    """Where the recipe has it."""
    protected: bool
    """Whether it is locked below 0."""

    @property
    def zero(self) -> float:
        """Where 0 is, from 0 (left end) to 1 (right end)."""
        return -self.lowest / (self.highest - self.lowest)


def slider_ranges(recipe: Recipe, protected: Container[str]) -> list[SliderRange]:
    """Return a slider for each preference whose η is one number; others stay as the recipe has them."""
    found = []
    for name, eta in recipe.etas.items():
        if eta is None:
            continue
        reach = max(REACH, abs(eta))
        locked = name in protected
        found.append(SliderRange(name, 0.0 if locked else -reach, reach, eta, locked))
    return found


def as_etas(ranges: Sequence[SliderRange], values: Sequence[float]) -> dict[str, float]:
    """Return the sliders' values by preference; 0 rather than −0."""
    return {item.name: round(value, 6) + 0.0 for item, value in zip(ranges, values, strict=True)}
