"""A recipe on one model in memory, switched between its base and its mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import Topic, raise_all
from pv_merge.live.controller import PreferenceController
from pv_merge.live.live_eta import LiveEta
from pv_merge.live.weights import LiveMerge
from pv_merge.merging.mix import alone, low_rank_mix, nonlinear_controls
from pv_merge.recipe.checks.roles import protected_problems
from pv_merge.recipe.opened import OpenRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LiveMix(LiveEta):
    """Puts a live model, which must be the recipe's base, at any η and back, as fast as can be.

    Where every input is an adapter and the recipe is plain, only scales change; otherwise the
    weights are written (``LiveMerge``). What the model is already is not written again.
    """

    def __init__(self, opened: OpenRecipe, model: PreTrainedModel) -> None:
        self.opened, self.recipe = opened, opened.recipe
        vectors = _vectors(opened)
        self._way: PreferenceController | LiveMerge = (
            PreferenceController(model, vectors) if vectors else LiveMerge(opened, model)
        )
        self._is_base = True
        self._shown: dict[str, float | None] | None = None
        """The η that the model has; None where it is the base, or was left half-written."""

    @property
    def scales_only(self) -> bool:
        """Whether the weights never move."""
        return isinstance(self._way, PreferenceController)

    def etas_with(self, etas: Mapping[str, float]) -> dict[str, float | None]:
        """Return every η of the mix; None where the recipe's differs between weights.

        Raises ``PvMergeError`` for a preference that the recipe does not name, a value that is not
        finite, and a negative one of a protected preference, unless the recipe allows it.
        """
        self.opened.known(etas)
        negative = [name for name, value in etas.items() if value < 0]
        problems = protected_problems(self.recipe, self.opened.inputs, negative)
        raise_all(problems, Topic.PROTECTED)
        return {**self.recipe.etas, **etas}

    def set(self, etas: Mapping[str, float], /) -> None:
        """Make the model the mix, with the recipe's η where none is named.

        Raises ``PvMergeError`` as ``etas_with`` does.
        """
        wanted = self.etas_with(etas)
        if self._shown == wanted:
            return
        self._shown, self._is_base = None, False
        if isinstance(self._way, PreferenceController):
            self._way.set({name: float(eta or 0) for name, eta in wanted.items()})
        else:
            self._way.set(etas)
        self._shown = wanted

    def reset(self) -> None:
        """Make the model the base."""
        if not self._is_base:
            self._shown = None
            self._way.reset()
            self._is_base = True

    def close(self) -> None:
        """Make the model the base, without anything of ours in it."""
        self._way.close()
        self._shown, self._is_base = None, True


def _vectors(opened: OpenRecipe) -> dict[str, PreferenceVector]:
    """Return each preference's low-rank vector; empty where scales alone cannot give the mix."""
    recipe = opened.recipe
    if opened.checkpoints or nonlinear_controls(recipe) or None in recipe.etas.values():
        return {}
    return {
        name: PreferenceVector(name, dict(low_rank_mix(opened, alone(recipe, name)).changes))
        for name in recipe.preferences
    }
