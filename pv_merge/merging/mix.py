"""A recipe's whole mix Σ η·φ as one low-rank change of each weight: what an adapter can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, concatenated
from pv_merge.arithmetic.preference import consensus, preference_vector
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.merging.truncation import Truncation
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.recipe import Recipe


@dataclass(frozen=True)
class LowRankMix:
    """Σ η·φ of each weight that moves, as ``b @ a``."""

    changes: dict[str, LowRank]
    """By the weight's name; every scale is 1."""
    relative_error: float = 0.0
    """‖what truncation lost‖ / ‖Σ η·φ‖, over all weights; 0 where nothing was truncated."""
    left_out: tuple[str, ...] = ()
    """Weights that dense inputs move and no LoRA layer holds, such as norms; part of the error."""

    @property
    def rank(self) -> int:
        """The largest rank of any weight."""
        return max((change.a.shape[0] for change in self.changes.values()), default=0)


def nonlinear_controls(recipe: Recipe) -> list[str]:
    """Return a line for each setting under which the mix is not Σ η·φ, so that no adapter holds it."""
    return [
        f"{recipe.path}: {what} is not linear in the vectors, so no adapter can hold the mix; leave "
        "it out, or merge with pv-merge run"
        for what in recipe.nonlinear()
    ]


def alone(recipe: Recipe, preference: str) -> dict[str, float]:
    """Return eta 1 for ``preference`` and 0 for the others: what gives its φ by itself."""
    return {name: float(name == preference) for name in recipe.preferences}


def low_rank_mix(
    opened: OpenRecipe,
    etas: Mapping[str, float] | None = None,
    rank: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> LowRankMix:
    """Return the recipe's mix; ``etas`` replace its own.

    Adapters are concatenated, which is exact. With ``rank``, no weight keeps more than that: the
    best approximation, whose error is told. Raises ``PvMergeError`` for controls that are not
    linear and, without ``rank``, for inputs that are not low-rank.
    """
    raise_all(nonlinear_controls(opened.recipe), Topic.CONTROL)
    names = opened.base.names
    taken = Truncation(rank)
    for done, name in enumerate(names, start=1):
        dense = opened.dense_inputs(name, etas)
        if dense and rank is None:
            raise PvMergeError(
                f"{dense[0]}: holds whole weights, and an adapter holds low-rank changes; make a low-rank "
                "vector of it (pv-merge extract --form low-rank), or say --rank R for a truncated one"
            )
        if dense:
            phi = _dense(opened, name, etas)
            if phi is not None:
                taken.take_dense(name, phi)
        elif parts := opened.changes(name, etas):
            taken.take(name, concatenated(parts, name))
        advance(done, len(names))
    if not taken.changes:
        raise PvMergeError(
            f"{opened.recipe.path}: moves no weight that an adapter can hold; is every eta 0?"
        )
    return LowRankMix(taken.changes, taken.relative_error, tuple(taken.left_out))


def _dense(opened: OpenRecipe, name: str, etas: Mapping[str, float] | None) -> Tensor | None:
    """Return Σ η·φ of one weight in float32, or None where nothing moves."""
    base = opened.base.tensor(name)
    if not base.is_floating_point():
        return None
    steps = [
        preference_vector(base, p.positives, p.negatives, p.vectors).mul_(p.eta)
        for p in opened.preferences(name, etas)
        if p.eta != 0
    ]
    phi = consensus(steps, "none") if steps else None
    return phi if phi is not None and bool(phi.any()) else None
