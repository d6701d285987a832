"""A recipe whose base and inputs are open: for each weight, what every preference contributes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pv_merge.arithmetic.low_rank_rows import Factors, dense
from pv_merge.arithmetic.terms import Controls, PreferenceInputs
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.weight_names import layer_of
from pv_merge.errors import PvMergeError, Topic, did_you_mean
from pv_merge.recipe.controls import checked_eta
from pv_merge.recipe.grouping import PreferenceSettings
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.own_base import Origin, PolicySide, origins
from pv_merge.recipe.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from pv_merge.arithmetic.low_rank import LowRank


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint that has not been read."""

    checkpoint: Checkpoint
    name: str

    def tensor(self) -> Tensor:
        """Return it, memory-mapped."""
        return self.checkpoint.tensor(self.name)

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.checkpoint)


@dataclass(frozen=True)
class Thin:
    """An adapter's change of one weight, as its two factors."""

    factors: Factors
    label: str
    """What messages call it."""

    def tensor(self) -> Tensor:
        """Return it in full, in float32."""
        import torch

        return torch.from_numpy(dense(self.factors))


Part = Stored | Thin
"""An input's share in one weight, still to be read or formed."""


class OpenRecipe:
    """Base and inputs of a recipe, opened; nothing is read in full until it is asked for.

    ``pv_merge.recipe.opening.open_recipe`` makes it. Raises ``PvMergeError`` where the settings of
    a preference cannot be resolved for some weight.
    """

    def __init__(self, recipe: Recipe, base: Checkpoint, inputs: list[OpenInput]) -> None:
        self.recipe, self.base, self.inputs = recipe, base, inputs
        self.origins = origins(base, _sides(inputs)) if recipe.allow_related_base else []
        floating = [name for name in base.names if base.infos[name].floating]
        self._settings = recipe.table({name: self.depth(name) for name in floating})

    @property
    def live_base(self) -> str:
        """What transformers loads for the base: its unpacked copy where it is quantized."""
        return self.base.name

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The inputs that are checkpoints or dense vectors."""
        return [item.checkpoint for item in self.inputs if item.checkpoint is not None]

    @property
    def adapters(self) -> list[Adapter]:
        """The inputs that are adapters."""
        return [item.adapter for item in self.inputs if item.adapter is not None]

    @property
    def controls(self) -> Controls:
        """The recipe's settings for the whole merge."""
        return self.recipe.controls

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

    def settings(self, name: str) -> tuple[PreferenceSettings, ...]:
        """Return what the recipe says of every preference for the weight ``name``."""
        return self._settings[name]

    def parts(
        self,
        name: str,
        etas: Mapping[str, float] | None = None,
        skip: Container[str] = (),
    ) -> list[PreferenceInputs[Part]]:
        """Return every preference's inputs for the weight ``name``; ``etas`` replace the recipe's.

        They are ``Stored`` where a checkpoint holds them, and ``Thin`` where an adapter does. A
        preference whose eta is 0 has none, since nothing of it is needed, nor has one in ``skip``.
        """
        found = []
        for said in self.settings(name):
            eta = (etas or {}).get(said.name, said.eta)
            sides: dict[str, list[Part]] = {"positive": [], "negative": [], "vector": []}
            for item in self._of(said.name) if eta != 0 and said.name not in skip else ():
                if item.checkpoint is not None:
                    sides[item.polarity].append(Stored(item.checkpoint, name))
                elif (change := item.factors(name)) is not None:
                    # An adapter's change is a delta already, so it counts as a vector.
                    sign = -1.0 if item.polarity == "negative" else 1.0
                    sides["vector"].append(Thin(change.times(sign), item.model))
            if any(sides.values()):
                for origin in self._origins_of(said.name):
                    part = Stored(origin.checkpoint, name)
                    sides[origin.polarity] += [part] * abs(origin.times)
            found.append(said.holding(eta, *sides.values()))
        return found

    def preferences(
        self,
        name: str,
        etas: Mapping[str, float] | None = None,
        skip: Container[str] = (),
    ) -> list[PreferenceInputs[Tensor]]:
        """Return ``parts`` with their tensors, memory-mapped, as the recipe's ``dtype`` has them."""
        from pv_merge.arithmetic.dtypes import TORCH_DTYPES

        cast = TORCH_DTYPES[self.recipe.dtype] if self.recipe.dtype else None

        def load(part: Part) -> Tensor:
            tensor = part.tensor()
            return tensor if cast is None else tensor.to(cast)

        return [group.mapped(load) for group in self.parts(name, etas, skip)]

    def dense_inputs(self, name: str, etas: Mapping[str, float] | None = None) -> list[str]:
        """Return the inputs that are not low-rank and count for the weight ``name``."""
        found = self._etas(name, etas)
        return [
            item.model
            for item in self.inputs
            if item.checkpoint is not None and found.get(item.preference, 0.0) != 0
        ]

    def changes(
        self, name: str, etas: Mapping[str, float] | None = None
    ) -> list[tuple[float, LowRank]]:
        """Return (±η, change) for every adapter that counts for the weight ``name``."""
        found = self._etas(name, etas)
        parts = []
        for item in self.inputs:
            eta = found.get(item.preference, 0.0)
            change = item.change(name) if item.adapter is not None and eta != 0 else None
            if change is not None:
                parts.append((-eta if item.polarity == "negative" else eta, change))
        return parts

    def known(self, etas: Mapping[str, float]) -> None:
        """Raise ``PvMergeError`` for an eta that is not finite, or of no preference of the recipe's."""
        for name, value in etas.items():
            checked_eta(value, f"eta of {name}")
            if name not in self.recipe.preferences:
                hint = did_you_mean(name, self.recipe.preferences)
                text = f"{self.recipe.path}: has no preference {name!r}{hint}"
                raise PvMergeError(text, Topic.ETA)

    def _etas(self, name: str, etas: Mapping[str, float] | None) -> dict[str, float]:
        """Return every preference's eta for one weight; none for a buffer that is not merged."""
        said = {item.name: item.eta for item in self._settings.get(name, ())}
        return {key: (etas or {}).get(key, eta) for key, eta in said.items()}

    def _of(self, preference: str) -> list[OpenInput]:
        return [item for item in self.inputs if item.preference == preference]

    def _origins_of(self, preference: str) -> list[Origin]:
        return [item for item in self.origins if item.preference == preference]


def _sides(inputs: list[OpenInput]) -> list[PolicySide]:
    """Return the policies whose weights are read in full; an adapter's change has no base in it."""
    return [
        PolicySide(item.model, item.preference, item.polarity, item.own_base)
        for item in inputs
        if item.checkpoint is not None and item.polarity in ("positive", "negative")
    ]
