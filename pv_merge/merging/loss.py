"""How much of each vector reached the output: the report of a merge.

For every weight it keeps a few inner products, from which shares and errors follow for any group
of weights: a layer, or the whole model.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from pv_merge.arithmetic.shares import shares
from pv_merge.artifacts.weight_names import layer_of

if TYPE_CHECKING:
    from pv_merge.arithmetic.windows import Sums

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
    base_kept: dict[str, int]
    """Weights with values that are not finite, where the base's stayed, and how many."""


@dataclass(frozen=True)
class Products:
    """Inner products over some weights; P is the number of preferences."""

    base: float
    """‖base‖²"""
    gram: np.ndarray
    """⟨s_p, s_q⟩ of the steps s = η·φ, (P, P)"""
    reached: np.ndarray
    """⟨r, s_p⟩ of the change r that the output shows, (P,)"""
    change: float
    """‖r‖²"""

    def __add__(self, other: Products) -> Products:
        return Products(
            self.base + other.base,
            self.gram + other.gram,
            self.reached + other.reached,
            self.change + other.change,
        )


class LossReport:
    """Collects parts while a merge goes on; several threads may add at the same time."""

    def __init__(self, etas: Mapping[str, float | None]) -> None:
        self.etas = dict(etas)
        self._parts: dict[str, dict[int, Products]] = {}
        self._lock = threading.Lock()

    def collect(self, name: str, start: int, products: Products) -> None:
        """Take the inner products of the part of a weight that begins at element ``start``."""
        with self._lock:
            self._parts.setdefault(name, {})[start] = products

    def take(
        self,
        name: str,
        start: int,
        preferences: Sequence[str],
        etas: np.ndarray,
        sums: Sums,
        target: int,
    ) -> None:
        """Take what kernels found of a part: of φ, which ``etas`` make steps."""
        at, count = [list(self.etas).index(label) for label in preferences], len(self.etas)
        gram, reached = np.zeros((count, count)), np.zeros(count)
        scale = np.nan_to_num(etas.astype(np.float64))
        upper = np.triu(sums.gram)
        gram[np.ix_(at, at)] = (upper + np.triu(upper, 1).T) * np.outer(scale, scale)
        reached[at] = sums.reached[target] * scale
        self.collect(name, start, Products(sums.base, gram, reached, float(sums.change[target])))

    def _weight(self, name: str) -> Products:
        """Return the sums of a weight, added up in order, whichever thread was first."""
        parts = self._parts[name]
        return reduce(operator.add, (parts[start] for start in sorted(parts)))

    def to_dict(self) -> MergeReport:
        """Return the report: over all weights, and by layer."""
        whole = self._nothing()
        layers: dict[str, Products] = {}
        for name in sorted(self._parts):
            own = self._weight(name)
            whole += own
            layer = layer_of(name)
            label = "outside the layers" if layer is None else str(layer)
            layers[label] = layers.get(label, self._nothing()) + own
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

    def _nothing(self) -> Products:
        count = len(self.etas)
        return Products(0.0, np.zeros((count, count)), np.zeros(count), 0.0)

    def _figures(self, sums: Products) -> LossFigures:
        intended = float(sums.gram.sum())
        missed = float(sums.change - 2 * sums.reached.sum() + intended)
        arrived = shares(sums.gram.tolist(), sums.reached.tolist())
        preferences: dict[str, PreferenceLoss] = {}
        for index, (name, eta) in enumerate(self.etas.items()):
            step = float(sums.gram[index, index]) ** 0.5
            preferences[name] = {
                "eta": eta,
                "norm": step / abs(eta) if eta else None,
                "relative_step": step / sums.base**0.5 if sums.base else 0.0,
                "share": arrived[index],
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
