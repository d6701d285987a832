"""A recipe applied to a live model: weights written in place, and put back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pv_merge.arithmetic import merge
from pv_merge.errors import PvMergeError
from pv_merge.recipe import Recipe
from pv_merge.sources import Sources

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LiveMerge:
    """Sets a live model's weights to base + Σ η·φ for any η, reading the recipe's inputs lazily.

    ``model`` must hold the recipe's base. Its weights keep their dtype; in float32 nothing is
    rounded. As a context manager it restores the base on exit, also after an exception.
    """

    def __init__(self, recipe: Recipe, model: PreTrainedModel) -> None:
        self.sources = Sources(recipe)
        self._weights: dict[str, Tensor] = {}
        state = model.state_dict()
        for name in self.sources.base.names:
            base = self.sources.base.tensor(name)
            if not base.is_floating_point():
                continue
            if name not in state:
                raise PvMergeError(
                    f"{self.sources.base}: {name} is not a weight of the live model "
                    f"{type(model).__name__}; merge to disk instead"
                )
            if self._moves(name, base):
                self._weights[name] = state[name]

    def _moves(self, name: str, base: Tensor) -> bool:
        """Return whether any input changes this weight (a dense vector holds zeros where not)."""
        ones = dict.fromkeys(self.sources.recipe.preferences, 1.0)
        for item in self.sources.preferences(name, ones):
            if any(bool(tensor.any()) for tensor in item.vectors):
                return True
            if any(not _same(tensor, base) for tensor in item.positives + item.negatives):
                return True
        return False

    @torch.no_grad()
    def set(self, etas: Mapping[str, float]) -> None:
        """Write base + Σ η·φ; preferences that are not named keep the recipe's eta."""
        self.sources.known(etas)
        for name, weight in self._weights.items():
            base = self.sources.base.tensor(name)
            preferences = self.sources.preferences(name, etas)
            weight.copy_(
                merge(base, preferences, self.sources.controls, dtype=weight.dtype, name=name)
            )

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the base's weights back, bit for bit."""
        for name, weight in self._weights.items():
            weight.copy_(self.sources.base.tensor(name))

    def __enter__(self) -> LiveMerge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()


def _same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left, right)
