"""``PreferenceController``: η on a running model, and exactly undone."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pv_merge.adapter import LowRank
from pv_merge.arithmetic import PreferenceInputs, merge
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.live_names import LiveNames, live_names
from pv_merge.vector import PreferenceVector


class PreferenceController:
    """Adds preference vectors to a live model, each with an η that can be changed at any time.

    >>> control = PreferenceController(model, {"helpful": vector, "polite": other})
    >>> control.set(helpful=0.8, polite=-0.2)
    >>> control.reset()

    Vectors that are all low-rank become PEFT adapters: only their scales change, the weights never
    move, and ``set`` takes the same time for any size of model. Otherwise the weights that a vector
    moves are written in place as base + Σ η·φ, from a copy of the base that is kept in their
    dtype, and ``reset`` copies it back bit for bit. ``dense=True`` asks for the second way.

    As a context manager it resets on exit, also after an exception. One thread may change η at a
    time: ``set`` from a second thread raises ``PvMergeError`` at once. Do not call ``set`` while
    another thread runs the model.
    """

    def __init__(
        self,
        model: nn.Module,
        vectors: Mapping[str, PreferenceVector],
        *,
        dense: bool = False,
    ) -> None:
        if not vectors:
            raise PvMergeError("a controller needs at least one vector")
        self.model = model
        self._lock = threading.Lock()
        self._eta = dict.fromkeys(vectors, 0.0)
        fitting = {label: _as_live(model, label, vector) for label, vector in vectors.items()}
        thin = not dense and all(_adaptable(model, vector) for vector in fitting.values())
        self._way: _AdapterWay | _WeightWay = (
            _AdapterWay(model, fitting) if thin else _WeightWay(model, fitting)
        )

    @property
    def eta(self) -> dict[str, float]:
        """The present η of every vector."""
        return dict(self._eta)

    def set(self, **etas: float) -> None:
        """Set η of the named preferences; the others keep theirs."""
        for name, value in etas.items():
            if name not in self._eta:
                raise PvMergeError(f"no vector is called {name!r}{did_you_mean(name, self._eta)}")
            if not isinstance(value, int | float) or value - value != 0:
                raise PvMergeError(f"eta of {name} must be a finite number, got {value!r}")
        with self._alone():
            self._eta |= {name: float(value) for name, value in etas.items()}
            self._way.apply(self._eta)

    def reset(self) -> None:
        """Set every η to 0: the model is the base again, bit for bit."""
        with self._alone():
            self._eta = dict.fromkeys(self._eta, 0.0)
            self._way.reset()

    def close(self) -> None:
        """Reset, and take out of the model whatever was put into it."""
        self.reset()
        self._way.remove()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise PvMergeError("another thread is changing eta of this model; one may at a time")
        try:
            yield
        finally:
            self._lock.release()

    def __enter__(self) -> PreferenceController:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reset()


class _Converted:
    """A vector under the names of a live model that renames or fuses the weights of its files."""

    low_rank = False

    def __init__(self, vector: PreferenceVector, live: LiveNames) -> None:
        self._vector, self._live = vector, live

    @property
    def names(self) -> list[str]:
        return sorted(self._live.sources)

    def __contains__(self, name: str) -> bool:
        return name in self._live.sources

    def dense(self, name: str) -> Tensor:
        return self._live.convert(name, self._vector.dense)

    change = dense


_Vector = PreferenceVector | _Converted


def _as_live(model: nn.Module, label: str, vector: PreferenceVector) -> _Vector:
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
    return _Converted(vector, live) if renamed else vector


def _adaptable(model: nn.Module, vector: _Vector) -> bool:
    """Return whether PEFT can hold the vector: low-rank, and on linear layers only."""
    from transformers.pytorch_utils import Conv1D

    return vector.low_rank and all(
        isinstance(model.get_submodule(name.removesuffix(".weight")), nn.Linear | Conv1D)
        for name in vector.names
    )


class _WeightWay:
    """Writes weights in place, from a copy of the base."""

    def __init__(self, model: nn.Module, vectors: Mapping[str, _Vector]) -> None:
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
        for name, weight in self._weights.items():
            terms = []
            for label, vector in self._vectors.items():
                if etas[label] != 0 and name in vector:
                    phi = vector.dense(name).to(weight.device)
                    terms.append(PreferenceInputs(label, etas[label], vectors=(phi,)))
            weight.copy_(merge(self._base[name], terms, dtype=weight.dtype, name=name))

    @torch.no_grad()
    def reset(self) -> None:
        for name, weight in self._weights.items():
            weight.copy_(self._base[name])

    def remove(self) -> None:
        self._base.clear()
        self._weights.clear()


def _moves(change: Tensor | LowRank) -> bool:
    return isinstance(change, LowRank) or (change.is_floating_point() and bool(change.any()))


class _AdapterWay:
    """Injects the vectors as PEFT LoRA layers, and changes their scales."""

    def __init__(self, model: nn.Module, vectors: Mapping[str, _Vector]) -> None:
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
        self.apply(dict.fromkeys(self._layers, 0.0))

    def remove(self) -> None:
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
