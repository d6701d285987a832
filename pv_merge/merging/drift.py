"""How far a fine-tune has moved along preference vectors: has it become less safe, less polite?

The move d = θ_model − θ_base is compared with each φ: its cosine, and its projection in units of eta,
c = ⟨d, φ⟩/‖φ‖². Random directions that have the norm of φ in each weight have a cosine of 0 with d,
with a standard deviation of (Σ_w ‖d_w‖²‖φ_w‖²/n_w)^½ / (‖d‖‖φ‖), n_w being the weight's elements:
what is within a few of these tells nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.base_hash import same_base
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import unmergeable
from pv_merge.artifacts.manifest import parse_manifest
from pv_merge.artifacts.policy import Policy
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.artifacts.weight_names import layer_of
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.recipe.checks.dtypes import some_matrices
from pv_merge.recipe.checks.finding import raise_errors
from pv_merge.recipe.checks.fit import config_findings
from pv_merge.recipe.checks.same_base import RELATED
from pv_merge.recipe.own_base import noted

TELLING = 4.0
"""Spreads of random directions from which on a cosine tells something."""
SMALLEST = 0.01
"""Eta below which nothing is suggested: a hundredth of a vector is no difference to any answer."""


class Along(TypedDict):
    """The move of some weights, seen along one vector."""

    cosine: float
    spread: float
    """Standard deviation of the cosine with random directions of the same norms."""
    eta: float
    """The projection, in units of eta: the move holds this much of φ."""


class VectorDrift(Along):
    """The move along one vector."""

    preference: str
    norm: float
    """‖φ‖"""
    joint_eta: float
    """The same by least squares over all vectors together."""
    suggested_eta: float
    """What undoes it where the model has moved against the vector; 0 where it has not."""
    layers: dict[str, Along]


class Drift(TypedDict):
    """How far a fine-tune has moved, and along which vectors."""

    kind: str
    base: str
    model: str
    norm: float
    """‖d‖"""
    relative_norm: float
    """‖d‖ / ‖θ_base‖"""
    vectors: dict[str, VectorDrift]


def drift(
    base: str | Path,
    model: str | Path,
    vectors: Mapping[str, PreferenceVector],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Drift:
    """Return how far ``model``, a checkpoint or an adapter, has moved from ``base`` along ``vectors``.

    ``vectors`` are by a label each. ``advance`` is told (weights done, weights in all). Raises
    ``PvMergeError`` for models that are not related or do not fit, and vectors of another base.

    >>> import pv_merge
    >>> found = pv_merge.drift("base", "positive", {"polite": pv_merge.load("vectors/polite")})
    >>> found["vectors"]["polite"]["cosine"] > 0.1, found["vectors"]["polite"]["suggested_eta"]
    (True, 0.0)
    """
    if not vectors:
        raise PvMergeError("drift needs at least one vector")
    start, end = Checkpoint(base), Policy(model)
    _refuse(start, end, vectors)
    sums = _Sums(list(vectors))
    names = [name for name in start.names if start.infos[name].floating]
    for done, name in enumerate(names, start=1):
        weight = start.tensor(name)
        delta = end.delta(name, weight)
        phis = [_dense(vector, name, weight) for vector in vectors.values()]
        sums.add(name, weight, delta, phis)
        advance(done, len(names))
    return sums.drift(str(base), str(model), vectors)


class _Sums:
    """Inner products of the move and the vectors, by layer."""

    def __init__(self, labels: Sequence[str]) -> None:
        count = len(labels)
        self.labels = labels
        self.base = 0.0
        self.gram = torch.zeros(count, count, dtype=torch.float64)
        self.layers: dict[str, list[list[float]]] = defaultdict(lambda: [[0.0] * 4 for _ in labels])
        """By layer and vector: ⟨d, φ⟩, ‖φ‖², ‖d‖², Σ ‖d_w‖²‖φ_w‖²/n_w."""

    def add(
        self, name: str, weight: Tensor, delta: Tensor | None, phis: Sequence[Tensor | None]
    ) -> None:
        """Take one weight."""
        layer = layer_of(name)
        rows = self.layers["outside" if layer is None else str(layer)]
        self.base += square_sum(weight)
        moved = square_sum(delta) if delta is not None else 0.0
        for number, phi in enumerate(phis):
            rows[number][2] += moved
            if phi is None:
                continue
            square = square_sum(phi)
            rows[number][1] += square
            if delta is not None:
                rows[number][0] += square_sum(delta, phi)
                rows[number][3] += moved * square / max(phi.numel(), 1)
            for other, second in enumerate(phis[: number + 1]):
                if second is not None:
                    self.gram[number, other] += square_sum(phi, second)

    def drift(self, base: str, model: str, vectors: Mapping[str, PreferenceVector]) -> Drift:
        """Return what they say."""
        totals = [
            [sum(rows[number][part] for rows in self.layers.values()) for part in range(4)]
            for number in range(len(self.labels))
        ]
        moved = totals[0][2]
        if not moved:
            raise PvMergeError(f"{model}: has the weights of {base}; it has not moved at all")
        gram = self.gram + self.gram.tril(-1).T
        inner = torch.tensor([total[0] for total in totals], dtype=torch.float64)
        joint = (torch.linalg.pinv(gram, hermitian=True) @ inner).tolist()
        order = sorted(self.layers, key=lambda key: (not key.isdigit(), key.zfill(6)))
        found: dict[str, VectorDrift] = {}
        for number, (label, vector) in enumerate(vectors.items()):
            along = _along(totals[number])
            telling = (
                abs(along["cosine"]) > TELLING * along["spread"] and -joint[number] >= SMALLEST
            )
            found[label] = {
                **along,
                "preference": vector.preference,
                "norm": totals[number][1] ** 0.5,
                "joint_eta": joint[number],
                "suggested_eta": -joint[number] if telling else 0.0,
                "layers": {key: _along(self.layers[key][number]) for key in order},
            }
        return {
            "kind": "drift",
            "base": base,
            "model": model,
            "norm": moved**0.5,
            "relative_norm": (moved / self.base) ** 0.5 if self.base else 0.0,
            "vectors": found,
        }


def _along(sums: Sequence[float]) -> Along:
    inner, phi, moved, spread = sums
    scale = (phi * moved) ** 0.5
    return {
        "cosine": inner / scale if scale else 0.0,
        "spread": spread**0.5 / scale if scale else 0.0,
        "eta": inner / phi if phi else 0.0,
    }


def _dense(vector: PreferenceVector, name: str, weight: Tensor) -> Tensor | None:
    if name not in vector:
        return None
    phi = vector.dense(name)
    if phi.shape != weight.shape:
        raise PvMergeError(
            f"{vector.preference}: has shape {list(phi.shape)} in {name}, the base "
            f"{list(weight.shape)}; is it a vector of another base?",
            Topic.BASE,
        )
    return phi.float() if phi.is_floating_point() else None


def _refuse(base: Checkpoint, model: Policy, vectors: Mapping[str, PreferenceVector]) -> None:
    """Raise ``PvMergeError`` where a difference of the models, or a product with a vector, means nothing."""
    raise_all(unmergeable(base) + model.problems(base), Topic.BASE)
    mine = noted(base)
    for label, vector in vectors.items():
        theirs = parse_manifest(vector.manifest, label).made_from
        if theirs.weights_sha256 and same_base(theirs, mine) is False:
            raise PvMergeError(
                f"{label}: was made from another base than {base} (its manifest's hash of the base's "
                "weights differs)",
                Topic.BASE,
            )
        unknown = [name for name in vector.names if name not in base]
        if unknown:
            raise PvMergeError(f"{label}: moves {unknown[0]}, which {base} lacks", Topic.BASE)
    if model.checkpoint is None:
        return
    raise_errors(config_findings(base, model.checkpoint))
    for name in some_matrices(base):
        left, right = base.tensor(name).float(), model.checkpoint.tensor(name).float()
        scale = (square_sum(left) * square_sum(right)) ** 0.5
        cosine = square_sum(left, right) / scale if scale else 0.0
        if cosine < RELATED:
            raise PvMergeError(
                f"{model}: its {name} is unlike the base's (cosine {cosine:.2f}); is it a fine-tune "
                f"of {base}?",
                Topic.BASE,
            )
