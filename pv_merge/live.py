"""A recipe applied to a live model: weights written in place, and put back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pv_merge.blocks import merge
from pv_merge.errors import PvMergeError
from pv_merge.live_names import live_names
from pv_merge.recipe import Recipe
from pv_merge.sources import Sources

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LiveMerge:
    """Sets a live model's weights to base + Σ η·φ for any η, reading the recipe's inputs lazily.

    ``model`` must hold the recipe's base. Its weights keep their dtype; in float32 nothing is
    rounded. With ``round_to`` they are rounded to that narrower dtype first, by the recipe's
    ``rounding``: the model is then as it will be on disk. As a context manager it restores the base
    on exit, also after an exception.
    """

    def __init__(
        self, recipe: Recipe, model: PreTrainedModel, round_to: torch.dtype | None = None
    ) -> None:
        self.sources = Sources(recipe)
        self._round_to = round_to
        self._weights: dict[str, Tensor] = {}
        self._live = live_names(
            model, {name: info.shape for name, info in self.sources.base.infos.items()}
        )
        moved = {name for name in self.sources.base.names if self._moves(name)}
        for name in self._live.unknown:
            if name in moved:
                raise PvMergeError(
                    f"{self.sources.base}: {name} is not a weight of the live model "
                    f"{type(model).__name__}; merge to disk instead"
                )
        state = model.state_dict()
        for target, names in self._live.sources.items():
            if moved.intersection(names):
                self._weights[target] = state[target]

    def _moves(self, name: str) -> bool:
        """Return whether any input changes this weight (a dense vector holds zeros where not)."""
        base = self.sources.base.tensor(name)
        if not base.is_floating_point():
            return False
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
        for target, weight in self._weights.items():

            def merged(name: str, dtype: torch.dtype = self._round_to or weight.dtype) -> Tensor:
                base = self.sources.base.tensor(name)
                preferences = self.sources.preferences(name, etas)
                return merge(base, preferences, self.sources.controls, dtype=dtype, name=name)

            weight.copy_(self._live.convert(target, merged))

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the base's weights back, bit for bit."""
        for target, weight in self._weights.items():
            weight.copy_(self._live.convert(target, self.sources.base.tensor))

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
