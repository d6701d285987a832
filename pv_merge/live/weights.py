"""Vectors, or a recipe, written into a live model's weights, which are put back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from psutil import virtual_memory
from torch import Tensor, nn

from pv_merge.arithmetic.blocks import moves
from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.preference import preference_vector
from pv_merge.arithmetic.terms import PreferenceInputs
from pv_merge.errors import PvMergeError
from pv_merge.live.fitting import LiveVector, change_moves
from pv_merge.live.live_eta import LiveEta
from pv_merge.live.weight_map import live_names
from pv_merge.recipe.opened import OpenRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HeldWeights(LiveEta):
    """Writes vectors into the weights that they move, from a copy of the base that is held."""

    def __init__(self, model: nn.Module, vectors: Mapping[str, LiveVector]) -> None:
        state = model.state_dict()
        self._vectors = vectors
        self._weights: dict[str, Tensor] = {}
        self._base: dict[str, Tensor] = {}
        for name in sorted({name for vector in vectors.values() for name in vector.names}):
            weight = state[name]
            if weight.is_floating_point() and any(
                name in vector and change_moves(vector.change(name)) for vector in vectors.values()
            ):
                self._weights[name] = weight
                self._base[name] = weight.detach().clone()

    @torch.no_grad()
    def set(self, etas: Mapping[str, float], /) -> None:
        """Write base + Σ η·φ into every weight that a vector moves."""
        for name, weight in self._weights.items():
            terms = []
            for label, vector in self._vectors.items():
                if etas[label] != 0 and name in vector:
                    phi = vector.dense(name).to(weight.device)
                    terms.append(PreferenceInputs(label, etas[label], vectors=(phi,)))
            place = weight.detach() if weight.is_contiguous() else None
            merged = merge(self._base[name], terms, dtype=weight.dtype, name=name, out=place)
            if place is None:
                weight.copy_(merged)

    @torch.no_grad()
    def reset(self) -> None:
        """Copy the base back."""
        for name, weight in self._weights.items():
            weight.copy_(self._base[name])

    def close(self) -> None:
        """Copy the base back, and let go of the copies."""
        self.reset()
        self._base.clear()
        self._weights.clear()


class LiveMerge(LiveEta):
    """Sets a live model's weights to base + Σ η·φ for any η, reading the recipe's inputs lazily.

    ``model`` must hold the recipe's base. Its weights keep their dtype; in float32 nothing is
    rounded. Every φ is formed once and held, if all of them fit in ``hold_bytes`` of memory (a
    third of what is free, unless said).
    With ``round_to`` they are rounded to that narrower dtype first, by the recipe's
    ``rounding``: the model is then as it will be on disk. As a context manager it restores the base
    on exit, also after an exception.
    """

    def __init__(
        self,
        opened: OpenRecipe,
        model: PreTrainedModel,
        round_to: torch.dtype | None = None,
        hold_bytes: int | None = None,
    ) -> None:
        self.opened = opened
        self._round_to = round_to
        self._weights: dict[str, Tensor] = {}
        self._live = live_names(
            model, {name: info.shape for name, info in self.opened.base.infos.items()}
        )
        moved = {name for name in self.opened.base.names if self._moves(name)}
        for name in self._live.unknown:
            if name in moved:
                raise PvMergeError(
                    f"{self.opened.base}: {name} is not a weight of the live model "
                    f"{type(model).__name__}; merge to disk instead"
                )
        state = model.state_dict()
        for target, names in self._live.sources.items():
            if moved.intersection(names):
                self._weights[target] = state[target]
        self._phis: dict[str, dict[str, Tensor]] = {}
        elements = sum(weight.numel() for weight in self._weights.values())
        limit = _free_bytes(model.device) // 3 if hold_bytes is None else hold_bytes
        self._hold = 4 * elements * len(opened.recipe.preferences) <= limit

    def _moves(self, name: str) -> bool:
        """Return whether any input changes this weight (a dense vector holds zeros where not)."""
        base = self.opened.base.tensor(name)
        if not base.is_floating_point():
            return False
        ones = dict.fromkeys(self.opened.recipe.preferences, 1.0)
        for item in self.opened.preferences(name, ones):
            if any(moves(tensor) for tensor in item.vectors):
                return True
            if any(not _same(tensor, base) for tensor in item.positives + item.negatives):
                return True
        return False

    @torch.no_grad()
    def set(self, etas: Mapping[str, float], /) -> None:
        """Write base + Σ η·φ; preferences that are not named keep the recipe's eta."""
        self.opened.known(etas)
        for target, weight in self._weights.items():
            direct = self._live.sources[target] == (target,) and weight.is_contiguous()
            place = weight.detach() if direct and self._round_to in (None, weight.dtype) else None

            def merged(
                name: str,
                dtype: torch.dtype = self._round_to or weight.dtype,
                out: Tensor | None = place,
                device: torch.device = weight.device,
            ) -> Tensor:
                base = self.opened.base.tensor(name).to(device)
                terms = self._terms(name, base, etas)
                return merge(base, terms, self.opened.controls, dtype=dtype, name=name, out=out)

            result = self._live.convert(target, merged)
            if place is None:
                weight.copy_(result)
        self.opened.refuse_changed()

    def _terms(
        self, name: str, base: Tensor, etas: Mapping[str, float]
    ) -> list[PreferenceInputs[Tensor]]:
        """Return every preference's inputs for one weight: φ itself, if it is held."""
        held = self._phis.setdefault(name, {})
        terms = []
        for item in self.opened.preferences(name, etas, skip=held):
            if item.name not in held:
                item = item.mapped(lambda tensor: tensor.to(base.device))
                if not self._hold or not (item.positives or item.negatives or item.vectors):
                    terms.append(item)
                    continue
                held[item.name] = preference_vector(
                    base, item.positives, item.negatives, item.vectors
                )
            terms.append(item.holding(vectors=(held[item.name],)))
        return terms

    @torch.no_grad()
    def reset(self) -> None:
        """Copy the base's weights back, bit for bit."""
        for target, weight in self._weights.items():
            weight.copy_(self._live.convert(target, self.opened.base.tensor))

    def close(self) -> None:
        """Restore the base, and let go of every φ."""
        self.reset()
        self._phis.clear()


def _free_bytes(device: torch.device) -> int:
    """Return the free memory of the device that the model is on."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(virtual_memory().available)


def _same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left, right)
