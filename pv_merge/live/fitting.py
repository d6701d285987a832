"""Vectors under the names of a live model, refused where they do not fit it."""

from __future__ import annotations

from torch import Tensor, nn

from pv_merge.arithmetic.blocks import moves
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.live.weight_map import LiveNames, live_names


class ConvertedVector:
    """A vector under the names of a live model that renames or fuses the weights of its files."""

    low_rank = False

    def __init__(self, vector: PreferenceVector, live: LiveNames) -> None:
        self._vector, self._live = vector, live

    @property
    def names(self) -> list[str]:
        """Names of the live model's weights that the vector holds a change for."""
        return sorted(self._live.sources)

    def __contains__(self, name: str) -> bool:
        return name in self._live.sources

    def dense(self, name: str) -> Tensor:
        """Return one live weight's change."""
        return self._live.convert(name, self._vector.dense)

    change = dense


LiveVector = PreferenceVector | ConvertedVector


def as_live(model: nn.Module, label: str, vector: PreferenceVector) -> LiveVector:
    """Return the vector under the model's names; raise ``PvMergeError`` where it does not fit."""
    state = model.state_dict()
    live = live_names(model, {name: vector.shape(name) for name in vector.names})
    for name in live.unknown:
        if change_moves(vector.change(name)):
            raise PvMergeError(
                f"{label}: moves {name}, which {type(model).__name__} does not have"
                f"{did_you_mean(name, state)}"
            )
    for name, shape in live.shapes.items():
        if shape != tuple(state[name].shape):
            raise PvMergeError(
                f"{label}: has shape {list(shape)} in {name}, the model "
                f"{list(state[name].shape)}; is it a vector of another base?"
            )
    renamed = len(live.sources) < len(vector.names) or any(
        names != (target,) for target, names in live.sources.items()
    )
    return ConvertedVector(vector, live) if renamed else vector


def change_moves(change: Tensor | LowRank) -> bool:
    """Return whether a change is not zero everywhere; a low-rank one is taken to move."""
    return isinstance(change, LowRank) or (change.is_floating_point() and moves(change))
