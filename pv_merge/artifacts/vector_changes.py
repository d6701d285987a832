"""The changes that a preference vector holds, weight by weight: read, measured and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, low_rank_dot
from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError

Change = Tensor | LowRank


class VectorChanges:
    """A change for each weight that moves, in memory or on disk, with the manifest that goes with it.

    ``changes`` maps weight names to a dense tensor or a ``LowRank``; weights that are not named
    do not move.
    """

    def __init__(
        self,
        preference: str,
        changes: dict[str, Change],
        manifest: dict[str, Any] | None = None,
        *,
        source: Checkpoint | None = None,
    ) -> None:
        self.preference = preference
        self.manifest = manifest or {}
        self._changes = changes
        self._source = source  # a dense vector on disk, read tensor by tensor

    @property
    def low_rank(self) -> bool:
        """Whether every change is held as a product of two thin matrices."""
        return self._source is None and all(
            isinstance(change, LowRank) for change in self._changes.values()
        )

    @property
    def names(self) -> list[str]:
        """Names of the weights that the vector holds a change for."""
        return self._source.names if self._source is not None else sorted(self._changes)

    def __contains__(self, name: str) -> bool:
        return name in self._changes or (self._source is not None and name in self._source)

    def change(self, name: str) -> Change:
        """Return one weight's change as it is held."""
        if self._source is not None:
            return self._source.tensor(name)
        return self._changes[name]

    def dense(self, name: str) -> Tensor:
        """Return one weight's change as a tensor: stored dtype if dense, float32 if low-rank."""
        change = self.change(name)
        return change.dense() if isinstance(change, LowRank) else change

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one weight's change, without forming it."""
        if self._source is not None:
            return self._source.infos[name].shape
        change = self._changes[name]
        if isinstance(change, LowRank):
            shape = (change.b.shape[0], change.a.shape[1])
            return shape[::-1] if change.transposed else shape
        return tuple(change.shape)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, dense change) for every floating-point weight."""
        for name in self.names:
            tensor = self.dense(name)
            if tensor.is_floating_point():
                yield name, tensor

    def norm(self) -> float:
        """Return ‖φ‖ over all weights (Frobenius)."""
        return float(max(0.0, self._dot(self)) ** 0.5)  # rounding can leave a low-rank zero below 0

    def cosine(self, other: VectorChanges) -> float:
        """Return cos(φ, other) over all weights; 0 where one of them is zero."""
        scale = self.norm() * other.norm()
        return float(self._dot(other) / scale) if scale else 0.0

    def _dot(self, other: VectorChanges) -> float:
        total = 0.0
        for name in self.names:
            if name not in other:
                continue
            self.same_shape(other, name)
            mine, theirs = self.change(name), other.change(name)
            if isinstance(mine, LowRank) and isinstance(theirs, LowRank):
                if mine.transposed != theirs.transposed:
                    total += square_sum(mine.dense(), theirs.dense())
                    continue
                dot = low_rank_dot(mine.a, mine.b, theirs.a, theirs.b)
                total += dot * mine.scale * theirs.scale
                continue
            left = self.dense(name)
            if left.is_floating_point():
                total += square_sum(left, left if other is self else other.dense(name))
        return total

    def same_shape(self, other: VectorChanges, name: str) -> None:
        """Raise ``PvMergeError`` where two vectors differ in the shape of a weight's change."""
        if self.shape(name) != other.shape(name):
            raise PvMergeError(
                f"{name}: {self.preference} has shape {list(self.shape(name))}, "
                f"{other.preference} {list(other.shape(name))}; are they of the same base?"
            )
