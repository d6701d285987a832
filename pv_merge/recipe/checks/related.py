"""How related the base of a recipe is to the bases that its inputs were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pv_merge.arithmetic.low_rank_rows import dense
from pv_merge.arithmetic.rounding_noise import stride
from pv_merge.artifacts.base_hash import cheap_hash, same_base
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import kind_problems, shape_problems
from pv_merge.artifacts.manifest import BaseNote
from pv_merge.artifacts.reference import cached_folder
from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.checks.dtypes import some_matrices
from pv_merge.recipe.checks.finding import Finding, error, note, warning
from pv_merge.recipe.checks.fit import config_findings
from pv_merge.recipe.checks.same_base import RELATED
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.opened import OpenRecipe, Part, Stored
from pv_merge.recipe.own_base import is_known, noted


@dataclass(frozen=True)
class Relation:
    """Two models compared by a few of their matrices."""

    cosine: float
    """The lowest cosine of a matrix of one with that of the other."""
    moved: float
    """‖this − other‖ / ‖other‖"""
    along: dict[str, float]
    """By preference, the cosine of (this − other) with φ."""
    matrices: int


def related_findings(opened: OpenRecipe) -> Iterator[Finding]:
    """Say of each base that inputs were made from how it relates to the one that they are put on."""
    mine = noted(opened.base)
    for inputs in _by_base(opened.inputs):
        own = inputs[0].own_base
        if same_base(own, mine) is not True:
            yield from _findings(opened, own, inputs)


def relation(opened: OpenRecipe, other: Checkpoint, preferences: Sequence[str]) -> Relation:
    """Compare the recipe's base with ``other``, of the same shapes, by a few matrices."""
    names = some_matrices(opened.base)
    lowest, moves, sizes = 1.0, 0.0, 0.0
    inner, squares = dict.fromkeys(preferences, 0.0), dict.fromkeys(preferences, 0.0)
    for name in names:
        every = stride(opened.base.infos[name].elements)
        this, that = (_sample(held, name, every) for held in (opened.base, other))
        scale = float(np.linalg.norm(this) * np.linalg.norm(that))
        lowest = min(lowest, float(this @ that) / scale if scale else 0.0)
        change = this - that
        moves += float(change @ change)
        sizes += float(that @ that)
        for preference in preferences:
            phi = _phi(opened, preference, name, every)
            inner[preference] += float(change @ phi)
            squares[preference] += float(phi @ phi)
    along = {
        key: inner[key] / (moves * squares[key]) ** 0.5 if moves * squares[key] else 0.0
        for key in preferences
    }
    return Relation(lowest, (moves / sizes) ** 0.5 if sizes else 0.0, along, len(names))


def _by_base(inputs: Sequence[OpenInput]) -> list[list[OpenInput]]:
    groups: list[list[OpenInput]] = []
    for item in inputs:
        if not is_known(item.own_base):
            continue
        same = (g for g in groups if same_base(g[0].own_base, item.own_base) is True)
        group = next(same, None)
        if group is None:
            groups.append([item])
        else:
            group.append(item)
    return groups


def _findings(opened: OpenRecipe, own: BaseNote, inputs: Sequence[OpenInput]) -> Iterator[Finding]:
    base, names = opened.base, list(dict.fromkeys(item.preference for item in inputs))
    models = ", ".join(item.model for item in inputs)
    place = None if own.path is None else cached_folder(own.path)
    if own.path is None or place is None:
        yield warning(
            f"{models}: put on {base}, made from {own.path or 'a base that only a hash names'}, which is not "
            "here, so how related the two are was not measured; say base: FOLDER at the input",
            Topic.BASE,
        )
        return
    try:
        other = Checkpoint(own.path)
        differ = own.weights_sha256 and cheap_hash(other) not in (None, own.weights_sha256)
        unfit = shape_problems(base, other) + kind_problems(base, other)
        odd = [*config_findings(base, other)]
    except PvMergeError as reason:
        yield warning(f"{models}: {reason.message}, so its base was not compared", Topic.BASE)
        return
    if differ:
        yield warning(
            f"{models}: put on {base}; {own.path} is not the base that it was made from (its "
            "manifest's hash differs), so how related the two are was not measured",
            Topic.BASE,
        )
        return
    yield from (error(f"{line}, and {models} was made from it", Topic.BASE) for line in unfit)
    yield from odd
    if not unfit:
        found = relation(opened, other, names)
        yield _said(f"{base}", f"{other}", models, found)


def _said(base: str, other: str, models: str, found: Relation) -> Finding:
    if found.cosine < RELATED:
        return error(
            f"{base}: is not related to {other}, which {models} was made from: a matrix of the one "
            f"has cosine {found.cosine:.2f} with that of the other",
            Topic.BASE,
        )
    along = ", ".join(f"{name} {value:+.3f}" for name, value in found.along.items())
    return note(
        f"{models}: made from {other}, put on {base}. The two are related: matrices have cosine "
        f"{found.cosine:.3f} or more and differ by {found.moved:.1%} of their norm; cosine of that "
        f"difference with each φ: {along} ({found.matrices} matrices looked at)",
        Topic.BASE,
    )


def _phi(opened: OpenRecipe, preference: str, name: str, every: int) -> np.ndarray:
    """Return some elements of one preference's φ, whatever its eta."""
    alone = {other: float(other == preference) for other in opened.recipe.preferences}
    (item,) = (part for part in opened.parts(name, alone) if part.name == preference)
    total = np.zeros(-(-opened.base.infos[name].elements // every))
    for sign, parts in ((1.0, item.positives), (-1.0, item.negatives), (1.0, item.vectors)):
        for part in parts:
            total += sign * _part(part, every)
    uneven = len(item.positives) - len(item.negatives)
    return total - uneven * _sample(opened.base, name, every) if uneven else total


def _part(part: Part, every: int) -> np.ndarray:
    if isinstance(part, Stored):
        return _sample(part.checkpoint, part.name, every)
    return dense(part.factors).ravel()[::every].astype(np.float64)


def _sample(checkpoint: Checkpoint, name: str, every: int) -> np.ndarray:
    found: np.ndarray = checkpoint.float32(name).ravel()[::every].astype(np.float64)
    return found
