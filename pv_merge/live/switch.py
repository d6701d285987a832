"""A recipe on one model in memory, switched between its base and its mix."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.live.controller import PreferenceController
from pv_merge.live.weights import LiveMerge
from pv_merge.merging.mix import alone, low_rank_mix, nonlinear_controls
from pv_merge.recipe.checks.roles import protected_problems
from pv_merge.recipe.opened import OpenRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LiveMix:
    """Puts a live model, which must be the recipe's base, at η = 0 or at the η that are set.

    Where every input is an adapter and the recipe is plain, only scales change; otherwise the
    weights are written (``LiveMerge``). The model starts, and as a context manager ends, as the base.
    """

    def __init__(self, opened: OpenRecipe, model: PreTrainedModel) -> None:
        self.opened, self.recipe = opened, opened.recipe
        self._set: dict[str, float] = {}
        self._shown: dict[str, float] | None = None  # the eta in the model; None is the base
        vectors = _vectors(opened)
        self._way = PreferenceController(model, vectors) if vectors else LiveMerge(opened, model)

    @property
    def scales_only(self) -> bool:
        """Whether the weights never move."""
        return isinstance(self._way, PreferenceController)

    @property
    def etas(self) -> dict[str, float | None]:
        """The mix's η; None where the recipe's differs between weights."""
        return {**self.recipe.etas, **self._set}

    def set(self, etas: Mapping[str, float]) -> None:
        """Change η of the mix, from the next ``use_mix`` on.

        Raises ``PvMergeError`` for a preference that the recipe does not name, a value that is not
        finite, and a negative one of a protected preference, unless the recipe allows it.
        """
        self.opened.known(etas)
        for name, value in etas.items():
            if value - value != 0:
                raise PvMergeError(f"eta of {name} must be a finite number, got {value}")
        negative = [name for name, value in etas.items() if value < 0]
        problems = protected_problems(self.recipe, self.opened.inputs, negative)
        raise_all(problems, Topic.PROTECTED)
        self._set |= etas

    def reset(self) -> None:
        """Take the recipe's η again."""
        self._set.clear()

    def use_base(self) -> None:
        """Make the model the base."""
        if self._shown is not None:
            if isinstance(self._way, LiveMerge):
                self._way.restore()
            else:
                self._way.reset()
        self._shown = None

    def use_mix(self) -> None:
        """Make the model the mix."""
        if self._shown == self._set:
            return
        if isinstance(self._way, LiveMerge):
            self._way.set(self._set)
        else:
            self._way.set(**{name: float(eta or 0) for name, eta in self.etas.items()})
        self._shown = dict(self._set)

    def __enter__(self) -> LiveMix:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.use_base()
        if isinstance(self._way, PreferenceController):
            self._way.close()


def _vectors(opened: OpenRecipe) -> dict[str, PreferenceVector]:
    """Return each preference's low-rank vector; empty where scales alone cannot give the mix."""
    recipe = opened.recipe
    if opened.checkpoints or nonlinear_controls(recipe) or None in recipe.etas.values():
        return {}
    return {
        name: PreferenceVector(name, dict(low_rank_mix(opened, alone(recipe, name)).changes))
        for name in recipe.preferences
    }
