"""What vectors are like, alone and together: norms, cosines, sign disagreement, interference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.arithmetic.measures import sign_disagreement, singular_interference, square_sum
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.artifacts.weight_names import is_linear, kind_of, layer_of

STI_RANK = 8
"""Singular vectors for each weight and vector in the interference measure (the paper's k)."""
STI_WEIGHTS = 32
"""Matrices it is averaged over: those of the largest mean Frobenius norm (Appendix F)."""


class VectorFigures(TypedDict):
    """What one vector is like."""

    preference: str
    norm: float
    cosine_positive_negative: float | None
    norm_by_layer: dict[str, float]
    norm_by_kind: dict[str, float]


class Cosines(TypedDict):
    """cos(φ, φ) of every two vectors."""

    labels: list[str]
    matrix: list[list[float]]


class InterferenceFigures(TypedDict):
    """The singular task interference, over the matrices of the largest norm."""

    rank: int
    matrices: int
    mean: float
    by_weight: dict[str, float]


class Inspection(TypedDict):
    """What vectors are like, alone and together."""

    kind: str
    vectors: dict[str, VectorFigures]
    cosines: NotRequired[Cosines]
    sign_disagreement: NotRequired[float]
    eigenvalues: NotRequired[list[float]]
    interference: NotRequired[InterferenceFigures]


def inspect(
    vectors: Mapping[str, PreferenceVector],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Return every figure of ``vectors`` (label to vector), ready for JSON.

    Of one vector: ‖φ‖, cos(+,−) from its manifest, norms by layer and by kind of module. Of two or
    more: the matrix of cosines, the share of weights whose signs disagree, and the singular task
    interference (Gargiulo et al. 2025; the paper's Table 16). Of several seeds of one preference
    the cosines are its stability (Table 8), with the eigenvalues of their Gram matrix (Figure 6).

    >>> import pv_merge
    >>> vectors = {name: pv_merge.load(f"vectors/{name}") for name in ("polite", "brief")}
    >>> figures = pv_merge.inspect(vectors)
    >>> figures["cosines"]["labels"], round(figures["cosines"]["matrix"][0][0], 6)
    (['polite', 'brief'], 1.0)
    """
    labels = list(vectors)
    names = sorted({name for vector in vectors.values() for name in vector.names})
    by_layer: dict[str, dict[str, float]] = {label: defaultdict(float) for label in labels}
    by_kind: dict[str, dict[str, float]] = {label: defaultdict(float) for label in labels}
    gram = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    disagree, compared = 0, 0
    largest: list[tuple[float, str]] = []
    for done, name in enumerate(names, start=1):
        phis = [_dense(vectors[label], name) for label in labels]
        layer = layer_of(name)
        squares = []
        for row, (label, phi) in enumerate(zip(labels, phis, strict=True)):
            square = square_sum(phi) if phi is not None else 0.0
            squares.append(square)
            by_layer[label]["outside" if layer is None else str(layer)] += square
            by_kind[label][kind_of(name)] += square
            for column in range(row):
                other = phis[column]
                if phi is not None and other is not None:
                    gram[row, column] += square_sum(phi, other)
            gram[row, row] += square
        here = [phi for phi in phis if phi is not None]
        if len(here) > 1:
            counts = sign_disagreement(here)
            disagree += counts[0]
            compared += counts[1]
            if is_linear(name, here[0]) and len(here) == len(labels):
                largest.append((sum(square**0.5 for square in squares) / len(squares), name))
        advance(done, len(names))
    gram = gram + gram.tril(-1).T
    result: Inspection = {
        "kind": "inspection",
        "vectors": {
            label: {
                "preference": vector.preference,
                "norm": float(gram[row, row]) ** 0.5,
                "cosine_positive_negative": (vector.manifest.get("measures") or {}).get(
                    "cosine_positive_negative"
                ),
                "norm_by_layer": _roots(by_layer[label]),
                "norm_by_kind": _roots(by_kind[label]),
            }
            for row, (label, vector) in enumerate(vectors.items())
        },
    }
    if len(labels) > 1:
        scale = gram.diagonal().sqrt()
        cosines = gram / (scale[:, None] * scale[None, :]).clamp_min(1e-300)
        result["cosines"] = {"labels": labels, "matrix": cosines.tolist()}
        result["sign_disagreement"] = disagree / compared if compared else 0.0
        result["eigenvalues"] = torch.linalg.eigvalsh(gram).flip(0).tolist()
        result["interference"] = _interference(vectors, largest)
    return result


def _interference(
    vectors: Mapping[str, PreferenceVector], largest: Sequence[tuple[float, str]]
) -> InterferenceFigures:
    chosen = [name for _, name in sorted(largest, reverse=True)[:STI_WEIGHTS]]
    values = {
        name: singular_interference(
            [_matrix(vector, name) for vector in vectors.values()], STI_RANK
        )
        for name in chosen
    }
    mean = sum(values.values()) / len(values) if values else 0.0
    return {"rank": STI_RANK, "matrices": len(values), "mean": mean, "by_weight": values}


def _matrix(vector: PreferenceVector, name: str) -> Tensor:
    phi = _dense(vector, name)
    assert phi is not None
    return phi


def _dense(vector: PreferenceVector, name: str) -> Tensor | None:
    if name not in vector:
        return None
    change = vector.change(name)
    dense = change.dense() if isinstance(change, LowRank) else change
    return dense.float() if dense.is_floating_point() else None


def _roots(squares: Mapping[str, float]) -> dict[str, float]:
    order = sorted(
        squares, key=lambda key: (not key.isdigit(), int(key) if key.isdigit() else 0, key)
    )
    return {key: squares[key] ** 0.5 for key in order}
