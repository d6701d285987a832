"""How much of each vector reached the output: the report of a merge.

For every weight it keeps a few inner products, from which shares and errors follow for any group
of weights: a layer, or the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from pv_merge.arithmetic.measures import shares
from pv_merge.artifacts.weight_names import layer_of

REPORT_NAME = "pv_merge_report.json"
WARN_BELOW = 0.9
"""A share below this is a warning."""


class PreferenceLoss(TypedDict):
    """What became of one preference."""

    eta: float | None
    norm: float | None
    """‖φ‖, where eta is one number and not 0."""
    relative_step: float
    """‖η·φ‖ / ‖base‖"""
    share: float
    """How much of η·φ the output shows; 1 is all of it."""


class LossFigures(TypedDict, total=False):
    """What was lost, over some weights."""

    preferences: dict[str, PreferenceLoss]
    relative_error: float
    """‖what the output lacks‖ / ‖Σ η·φ‖"""


class MergeReport(LossFigures, total=False):
    """The loss report of one merged model; empty where none was asked for."""

    kind: str
    format: int
    layers: dict[str, LossFigures]
    pv_merge: str


@dataclass
class _Sums:
    """Inner products over some weights; P is the number of preferences."""

    base: float = 0.0
    """‖base‖²"""
    gram: list[list[float]] = field(default_factory=list)
    """⟨s_p, s_q⟩ of the steps s = η·φ, P × P"""
    reached: list[float] = field(default_factory=list)
    """⟨r, s_p⟩ of the change r that the output shows, P"""
    change: float = 0.0
    """‖r‖²"""

    def add(self, other: _Sums) -> None:
        count = len(other.reached)
        if not self.reached:
            self.gram, self.reached = [[0.0] * count for _ in range(count)], [0.0] * count
        self.base += other.base
        self.change += other.change
        for p in range(count):
            self.reached[p] += other.reached[p]
            for q in range(count):
                self.gram[p][q] += other.gram[p][q]


class LossReport:
    """Collects blocks while a merge goes on; several threads may add at the same time."""

    def __init__(self, etas: Mapping[str, float | None]) -> None:
        self.etas = dict(etas)
        self._weights: dict[str, _Sums] = {}

    def products(self, base: Tensor, steps: Mapping[str, Tensor], out: Tensor) -> _Sums:
        """Return the inner products of one block (all flat); hand them to ``collect``.

        ``steps`` holds η·φ of the preferences that move.
        """
        origin = base.float()
        change = out.to(torch.float32, copy=True).sub_(origin)
        count = len(self.etas)
        gram = [[0.0] * count for _ in range(count)]
        reached = [0.0] * count
        moving = [(index, steps[name]) for index, name in enumerate(self.etas) if name in steps]
        for p, step in moving:
            reached[p] = float(torch.dot(change, step))
            for q, other in moving:
                if q >= p:
                    gram[p][q] = gram[q][p] = float(torch.dot(step, other))
        return _Sums(
            float(torch.dot(origin, origin)), gram, reached, float(torch.dot(change, change))
        )

    def collect(self, name: str, sums: _Sums) -> None:
        """Take the inner products of a part of the weight ``name``."""
        self._weights.setdefault(name, _Sums()).add(sums)

    def to_dict(self) -> MergeReport:
        """Return the report: over all weights, and by layer."""
        whole = _Sums()
        layers: dict[str, _Sums] = {}
        for name in sorted(self._weights):
            whole.add(self._weights[name])
            layer = layer_of(name)
            label = "outside the layers" if layer is None else str(layer)
            layers.setdefault(label, _Sums()).add(self._weights[name])
        order = sorted(
            layers, key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0)
        )
        figures = self._figures(whole)
        return {
            "kind": "merge_report",
            "format": 1,
            "preferences": figures["preferences"],
            "relative_error": figures["relative_error"],
            "layers": {label: self._figures(layers[label]) for label in order},
        }

    def _figures(self, sums: _Sums) -> LossFigures:
        intended = sum(sum(row) for row in sums.gram)
        missed = sums.change - 2 * sum(sums.reached) + intended
        arrived = shares(sums.gram, sums.reached)
        preferences: dict[str, PreferenceLoss] = {}
        for index, (name, eta) in enumerate(self.etas.items()):
            step = sums.gram[index][index] ** 0.5 if sums.gram else 0.0
            preferences[name] = {
                "eta": eta,
                "norm": step / abs(eta) if eta else None,
                "relative_step": step / sums.base**0.5 if sums.base else 0.0,
                "share": arrived[index] if arrived else 1.0,
            }
        return {
            "preferences": preferences,
            "relative_error": (max(missed, 0.0) / intended) ** 0.5 if intended else 0.0,
        }


def warnings(report: LossFigures) -> list[str]:
    """Return a line for each preference that lost more than a tenth on its way to the output."""
    return [
        f"{name}: only {entry['share']:.0%} of eta·phi reached the output's dtype; "
        "round stochastically (round_to: with the output's dtype), or write float32"
        for name, entry in report["preferences"].items()
        if entry["share"] < WARN_BELOW
    ]
