"""The two ways to put vectors into a live model: weights written in place, or PEFT layers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pv_merge.arithmetic.blocks import moves
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.arithmetic.merge import merge
from pv_merge.arithmetic.terms import PreferenceInputs
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.live.weight_map import LiveNames, live_names


class ConvertedVector:
    """A vector under the names of a live model that renames or fuses the weights of its files."""

    low_rank = False

    def __init__(self, vector: PreferenceVector, live: LiveNames) -> None:
        self._vector, self._live = vector, live

    @property
    def names(self) -> list[str]:
        """Names of the live model's weights that the vector holds a change for."""
        return sorted(self._live.sources)

    def __contains__(self, name: str) -> bool:
        return name in self._live.sources

    def dense(self, name: str) -> Tensor:
        """Return one live weight's change."""
        return self._live.convert(name, self._vector.dense)

    change = dense


LiveVector = PreferenceVector | ConvertedVector


def as_live(model: nn.Module, label: str, vector: PreferenceVector) -> LiveVector:
    """Return the vector under the model's names; raise ``PvMergeError`` where it does not fit."""
    state = model.state_dict()
    live = live_names(model, {name: vector.shape(name) for name in vector.names})
    for name in live.unknown:
        if _moves(vector.change(name)):
            raise PvMergeError(
                f"{label}: moves {name}, which {type(model).__name__} does not have"
                f"{did_you_mean(name, state)}"
            )
    for name, shape in live.shapes.items():
        if shape != tuple(state[name].shape):
            raise PvMergeError(
                f"{label}: has shape {list(shape)} in {name}, the model "
                f"{list(state[name].shape)}; is it a vector of another base?"
            )
    renamed = len(live.sources) < len(vector.names) or any(
        names != (target,) for target, names in live.sources.items()
    )
    return ConvertedVector(vector, live) if renamed else vector


def adaptable(model: nn.Module, vector: LiveVector) -> bool:
    """Return whether PEFT can hold the vector: low-rank, and on linear layers only."""
    from transformers.pytorch_utils import Conv1D

    return vector.low_rank and all(
        isinstance(model.get_submodule(name.removesuffix(".weight")), nn.Linear | Conv1D)
        for name in vector.names
    )


class WeightWay:
    """Writes weights in place, from a copy of the base."""

    def __init__(self, model: nn.Module, vectors: Mapping[str, LiveVector]) -> None:
        state = model.state_dict()
        self._vectors = vectors
        self._weights: dict[str, Tensor] = {}
        self._base: dict[str, Tensor] = {}
        for name in sorted({name for vector in vectors.values() for name in vector.names}):
            weight = state[name]
            if weight.is_floating_point() and any(
                name in vector and _moves(vector.change(name)) for vector in vectors.values()
            ):
                self._weights[name] = weight
                self._base[name] = weight.detach().clone()

    @torch.no_grad()
    def apply(self, etas: Mapping[str, float]) -> None:
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

    def remove(self) -> None:
        """Let go of the copies."""
        self._base.clear()
        self._weights.clear()


def _moves(change: Tensor | LowRank) -> bool:
    return isinstance(change, LowRank) or (change.is_floating_point() and moves(change))


class AdapterWay:
    """Injects the vectors as PEFT LoRA layers, and changes their scales."""

    def __init__(self, model: nn.Module, vectors: Mapping[str, LiveVector]) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
        from transformers.pytorch_utils import Conv1D

        self._model = model
        self._names = {label: f"pv_{number}" for number, label in enumerate(vectors)}
        self._layers: dict[str, list[Any]] = {}
        training = {name: p.requires_grad for name, p in model.named_parameters()}
        for label, vector in vectors.items():
            changes = {name.removesuffix(".weight"): vector.change(name) for name in vector.names}
            ranks = {module: _low_rank(change).a.shape[0] for module, change in changes.items()}
            top = max(ranks.values())
            config = LoraConfig(
                r=top,
                lora_alpha=top,
                target_modules=sorted(changes),
                rank_pattern={module: rank for module, rank in ranks.items() if rank != top},
                lora_dropout=0.0,
            )
            adapter = self._names[label]
            with warnings.catch_warnings():
                # PEFT warns of several adapters in one model, and of tied weights among them.
                warnings.simplefilter("ignore")
                inject_adapter_in_model(config, model, adapter_name=adapter)
            self._layers[label] = []
            for module, change in changes.items():
                layer = model.get_submodule(module)
                assert isinstance(layer, LoraLayer)
                held: Any = layer
                thin = _low_rank(change).stored(isinstance(held.get_base_layer(), Conv1D))
                a, b = held.lora_A[adapter].weight, held.lora_B[adapter].weight
                with torch.no_grad():
                    a.data = thin.a.to(a.device, torch.float32)
                    b.data = (thin.b.float() * thin.scale).to(b.device)
                self._layers[label].append(layer)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(training.get(name.replace(".base_layer", ""), False))
        self.reset()

    def apply(self, etas: Mapping[str, float]) -> None:
        """Set every adapter's scale to its η; layers without one are left out altogether."""
        active = [label for label, eta in etas.items() if eta != 0]
        for layer, adapters in self._adapters_of_layers(active).items():
            layer._disable_adapters = not adapters
            layer._active_adapter = adapters
        for label, eta in etas.items():
            for layer in self._layers[label]:
                layer.scaling[self._names[label]] = eta

    def _adapters_of_layers(self, active: list[str]) -> dict[Any, list[str]]:
        found: dict[Any, list[str]] = {
            layer: [] for layers in self._layers.values() for layer in layers
        }
        for label in active:
            for layer in self._layers[label]:
                found[layer].append(self._names[label])
        return found

    def reset(self) -> None:
        """Set every η to 0."""
        self.apply(dict.fromkeys(self._layers, 0.0))

    def remove(self) -> None:
        """Put the plain layers back."""
        ours = set(self._adapters_of_layers([]))
        for name, module in list(self._model.named_modules()):
            if module in ours:
                parent, _, leaf = name.rpartition(".")
                setattr(self._model.get_submodule(parent), leaf, module.get_base_layer())
        self._layers = {label: [] for label in self._layers}
        configs = getattr(self._model, "peft_config", {})
        for adapter in self._names.values():
            configs.pop(adapter, None)
        if not configs:
            vars(self._model).pop("peft_config", None)


def _low_rank(change: Tensor | LowRank) -> LowRank:
    assert isinstance(change, LowRank)
    return change
