"""``PreferenceController``: η on a running model, and exactly undone."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real

from torch import nn

from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.live.fitting import as_live
from pv_merge.live.live_eta import LiveEta
from pv_merge.live.lora_layers import LoraLayers, adaptable
from pv_merge.live.weights import HeldWeights


class PreferenceController(LiveEta):
    """Adds preference vectors to a live model, each with an η that can be changed at any time.

    >>> import pv_merge
    >>> from transformers import AutoModelForCausalLM
    >>> model = AutoModelForCausalLM.from_pretrained("base")
    >>> control = pv_merge.PreferenceController(model, {"polite": pv_merge.load("vectors/polite")})
    >>> control.set(polite=0.8)
    >>> control.eta
    {'polite': 0.8}
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
        fitting = {label: as_live(model, label, vector) for label, vector in vectors.items()}
        thin = not dense and all(adaptable(model, vector) for vector in fitting.values())
        self._way: LiveEta = LoraLayers(model, fitting) if thin else HeldWeights(model, fitting)

    @property
    def eta(self) -> dict[str, float]:
        """The present η of every vector."""
        return dict(self._eta)

    def set(self, etas: Mapping[str, float] | None = None, /, **named: float) -> None:
        """Set η of the named preferences; the others keep theirs."""
        asked = {**(etas or {}), **named}
        for name, value in asked.items():
            if name not in self._eta:
                raise PvMergeError(f"no vector is called {name!r}{did_you_mean(name, self._eta)}")
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise PvMergeError(f"eta of {name} must be a finite number, got {value!r}")
        with self._alone():
            self._eta |= {name: float(value) for name, value in asked.items()}
            self._way.set(self._eta)

    def reset(self) -> None:
        """Set every η to 0: the model is the base again, bit for bit."""
        with self._alone():
            self._eta = dict.fromkeys(self._eta, 0.0)
            self._way.reset()

    def close(self) -> None:
        """Reset, and take out of the model whatever was put into it."""
        with self._alone():
            self._eta = dict.fromkeys(self._eta, 0.0)
            self._way.reset()
            self._way.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise PvMergeError("another thread is changing eta of this model; one may at a time")
        try:
            yield
        finally:
            self._lock.release()

    def __exit__(self, *error: object) -> None:
        self.reset()  # and no more, so that it can be entered again
