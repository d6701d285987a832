"""Vectors as PEFT LoRA layers in a live model: only their scales change, the weights never move."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.live.fitting import LiveVector
from pv_merge.live.live_eta import LiveEta


def adaptable(model: nn.Module, vector: LiveVector) -> bool:
    """Return whether PEFT can hold the vector: low-rank, and on linear layers only."""
    from transformers.pytorch_utils import Conv1D

    return vector.low_rank and all(
        isinstance(model.get_submodule(name.removesuffix(".weight")), nn.Linear | Conv1D)
        for name in vector.names
    )


class LoraLayers(LiveEta):
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

    def set(self, etas: Mapping[str, float], /) -> None:
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
        self.set(dict.fromkeys(self._layers, 0.0))

    def close(self) -> None:
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
