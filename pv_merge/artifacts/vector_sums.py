"""Sums and multiples of preference vectors, weight by weight; low-rank ones stay low-rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from pv_merge.arithmetic.low_rank import LowRank, concatenated
from pv_merge.artifacts.base_hash import same_base
from pv_merge.artifacts.manifest import parse_manifest
from pv_merge.artifacts.vector_changes import Change, VectorChanges
from pv_merge.errors import PvMergeError


class Derived(NamedTuple):
    """What makes a new vector."""

    preference: str
    changes: dict[str, Change]
    manifest: dict[str, Any]


def scaled(vector: VectorChanges, factor: float) -> Derived:
    """Return ``factor · vector``; dense changes in float32."""
    changes: dict[str, Change] = {}
    for name in vector.names:
        change = vector.change(name)
        if isinstance(change, LowRank):
            changes[name] = replace(change, scale=change.scale * factor)
        elif change.is_floating_point():
            changes[name] = change.float() * factor
    return Derived(vector.preference, changes, {"derived": True, **_lineage(vector)})


def combined(left: VectorChanges, right: VectorChanges, sign: float) -> Derived:
    """Return ``left + sign · right``; ``PvMergeError`` for vectors of different bases."""
    mine, theirs = (parse_manifest(v.manifest, v.preference).made_from for v in (left, right))
    if same_base(mine, theirs) is False:
        raise PvMergeError(
            f"{left.preference} and {right.preference} are vectors of different bases "
            f"({mine.path}, {theirs.path})"
        )
    changes: dict[str, Change] = {}
    for name in sorted({*left.names, *right.names}):
        parts = [(1.0, left)] if name in left else []
        parts += [(sign, right)] if name in right else []
        if len(parts) == 2:
            left.same_shape(right, name)
        held = [(factor, vector.change(name)) for factor, vector in parts]
        if not all(isinstance(h, LowRank) or h.is_floating_point() for _, h in held):
            continue
        thin = [(factor, change) for factor, change in held if isinstance(change, LowRank)]
        if len(thin) == len(held):
            changes[name] = concatenated(thin, name)
        else:
            changes[name] = torch.stack(
                [vector.dense(name).float() * factor for factor, vector in parts]
            ).sum(0)
    joint = f"{left.preference}{'+' if sign > 0 else '-'}{right.preference}"
    name_ = left.preference if left.preference == right.preference else joint
    lineage = {**_lineage(right), **_lineage(left)}
    if any(vector.manifest.get("protected") for vector in (left, right)):
        lineage["protected"] = True
    return Derived(name_, changes, {"derived": True, **lineage})


def _lineage(vector: VectorChanges) -> dict[str, Any]:
    return {key: vector.manifest[key] for key in ("base", "protected") if key in vector.manifest}
