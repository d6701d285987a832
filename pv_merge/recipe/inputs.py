"""The tensors that a recipe names: for each weight, what every preference contributes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pv_merge.arithmetic.blocks import Controls, PreferenceInputs
from pv_merge.arithmetic.dtypes import TORCH_DTYPES
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.reference import parse_reference
from pv_merge.artifacts.weight_names import layer_of
from pv_merge.errors import PvMergeError, did_you_mean, raise_all
from pv_merge.recipe.grouping import InputSettings, group_inputs, settings_problems
from pv_merge.recipe.recipe import Recipe

_ABSENT = torch.empty(0)
"""Stands for the tensor of an input that leaves a weight alone."""


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint that has not been read."""

    checkpoint: Checkpoint
    name: str

    def tensor(self) -> Tensor:
        """Return it, memory-mapped."""
        return self.checkpoint.tensor(self.name)


class _Input:
    """One input of a recipe: a checkpoint, or an adapter over the base."""

    def __init__(self, model: str, base_model: str) -> None:
        self.model = model
        said = parse_reference(model)
        if said.over_base and said.base != base_model:
            raise PvMergeError(
                f"{model}: is an adapter over {said.base}, but the recipe's base is {base_model}"
            )
        folder, place = said.name, said.folder
        if not place.is_dir():
            raise PvMergeError(
                f"{folder}: no such folder (recipes are read relative to the current folder)"
            )
        self.adapter = Adapter(place) if is_adapter(place) else None
        if said.over_base and self.adapter is None:
            raise PvMergeError(f"{model}: {folder} is not an adapter; name it without {said.base}+")
        self.checkpoint = None if self.adapter else Checkpoint(folder)
        self.over_base = said.over_base

    def contribution(self, name: str, polarity: str) -> tuple[str, Stored | Tensor] | None:
        """Return (polarity, part) for one weight; None where the input leaves it alone.

        An adapter's change is a delta already, so it counts as a vector whatever its polarity.
        """
        if self.checkpoint is not None:
            return polarity, Stored(self.checkpoint, name)
        change = self.change(name)
        if change is None:
            return None
        delta = change.dense()
        return "vector", delta.neg_() if polarity == "negative" else delta

    def change(self, name: str) -> LowRank | None:
        """Return an adapter's change of one weight; None where it leaves it alone."""
        assert self.adapter is not None
        if not name.endswith(".weight"):
            return None
        return self.adapter.modules.get(name.removesuffix(".weight"))


class Sources:
    """Base and inputs of a recipe, opened; nothing is read in full until it is asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.base = Checkpoint(recipe.base_model)
        self._inputs = [_Input(item.model, recipe.base_model) for item in recipe.inputs]
        for item, said in zip(self._inputs, recipe.inputs, strict=True):
            if item.over_base and said.parameters.polarity == "vector":
                raise PvMergeError(
                    f"{item.model}: to mergekit this is the base with the adapter merged in, not a "
                    "difference; its polarity is positive"
                )

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The inputs that are checkpoints or dense vectors."""
        return [item.checkpoint for item in self._inputs if item.checkpoint is not None]

    @property
    def adapters(self) -> list[Adapter]:
        """The inputs that are adapters."""
        return [item.adapter for item in self._inputs if item.adapter is not None]

    @property
    def controls(self) -> Controls:
        """The recipe's settings for the whole merge."""
        said = self.recipe.parameters
        return Controls(said.sign_consensus, said.interference, said.rounding, said.seed)

    @cached_property
    def _layers(self) -> int:
        config = self.base.config
        for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
            if isinstance(config.get(key), int):
                return int(config[key])
        return 0

    def depth(self, name: str) -> float:
        """Return where a weight lies for gradients: 0 in the first layer, 1 in the last.

        As in mergekit, weights outside the layers count as 0, and a single layer as 1.
        """
        layer = layer_of(name)
        if layer is None:
            return 0.0
        return layer / (self._layers - 1) if self._layers > 1 else 1.0

    def parts(
        self,
        name: str,
        etas: Mapping[str, float] | None = None,
        skip: Container[str] = (),
    ) -> list[PreferenceInputs]:
        """Return every preference's inputs for the weight ``name``; ``etas`` replace the recipe's.

        Their tensors are ``Stored`` where a checkpoint holds them, and still to be read. A
        preference whose eta is 0 has none, since nothing of it is needed, nor has one in ``skip``.
        """
        settings: list[InputSettings] = []
        parts: list[Any] = []
        depth = self.depth(name)
        for item, said in zip(self._inputs, self.recipe.settings_for(name, depth), strict=True):
            assert said.preference is not None and said.polarity is not None
            eta = (etas or {}).get(said.preference, said.eta)
            needed = eta != 0 and said.preference not in skip
            found = item.contribution(name, said.polarity) if needed else None
            polarity, part = found if found else ("vector", _ABSENT)
            settings.append(replace(said, eta=eta, polarity=polarity))
            parts.append(part)
        return [_without_absent(group) for group in group_inputs(settings, parts)]

    def preferences(
        self,
        name: str,
        etas: Mapping[str, float] | None = None,
        skip: Container[str] = (),
    ) -> list[PreferenceInputs]:
        """Return ``parts`` with their tensors, memory-mapped, as the recipe's ``dtype`` has them."""
        cast = TORCH_DTYPES[self.recipe.dtype] if self.recipe.dtype else None

        def load(part: Stored | Tensor) -> Tensor:
            tensor = part.tensor() if isinstance(part, Stored) else part
            return tensor if cast is None else tensor.to(cast)

        return [group.mapped(load) for group in self.parts(name, etas, skip)]

    def dense_inputs(self, name: str, etas: Mapping[str, float] | None = None) -> list[str]:
        """Return the inputs that are not low-rank and count for the weight ``name``."""
        found = self._etas(name, etas)
        return [
            item.model
            for item, said in zip(self._inputs, self.recipe.inputs, strict=True)
            if item.checkpoint is not None and found[str(said.parameters.preference)] != 0
        ]

    def changes(
        self, name: str, etas: Mapping[str, float] | None = None
    ) -> list[tuple[float, LowRank]]:
        """Return (±η, change) for every adapter that counts for the weight ``name``."""
        found = self._etas(name, etas)
        parts = []
        for item, said in zip(self._inputs, self.recipe.inputs, strict=True):
            eta = found[str(said.parameters.preference)]
            change = item.change(name) if item.adapter is not None and eta != 0 else None
            if change is not None:
                parts.append((-eta if said.parameters.polarity == "negative" else eta, change))
        return parts

    def _etas(self, name: str, etas: Mapping[str, float] | None) -> dict[str, float]:
        """Return every preference's eta for one weight; ``etas`` replace the recipe's."""
        settings = self.recipe.settings_for(name, self.depth(name))
        raise_all([problem for problem in settings_problems(settings) if "eta" in problem][:1])
        found = {str(s.preference): s.eta for s in reversed(settings) if s.eta is not None}
        return found | dict(etas or {})

    def known(self, etas: Mapping[str, float]) -> None:
        """Raise ``PvMergeError`` for an eta of a preference that the recipe does not name."""
        for name in etas:
            if name not in self.recipe.preferences:
                hint = did_you_mean(name, self.recipe.preferences)
                raise PvMergeError(f"{self.recipe.path}: has no preference {name!r}{hint}")


def _without_absent(group: PreferenceInputs) -> PreferenceInputs:
    return replace(
        group,
        positives=tuple(part for part in group.positives if part is not _ABSENT),
        negatives=tuple(part for part in group.negatives if part is not _ABSENT),
        vectors=tuple(part for part in group.vectors if part is not _ABSENT),
    )
