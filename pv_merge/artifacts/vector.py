"""``PreferenceVector``: the difference of two policies, dense or low-rank, with its manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, low_rank_dot
from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.adapter import Adapter, weight_name
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, parse_manifest, read_manifest
from pv_merge.artifacts.reference import local_folder
from pv_merge.artifacts.vector_sums import combined, scaled
from pv_merge.errors import PvMergeError

Change = Tensor | LowRank


class PreferenceVector:
    """φ of one preference (Eq. 4): a change for each weight that it moves.

    ``changes`` maps weight names to a dense tensor or a ``LowRank``; weights that are not named
    do not move. Vectors over one base form a vector space: ``a + b``, ``a - b``, ``-a``, ``2 * a``,
    ``a / 2``.

    >>> import pv_merge
    >>> polite, brief = pv_merge.load("vectors/polite"), pv_merge.load("vectors/brief")
    >>> both = (polite + 2 * brief) / 2
    >>> both.preference, both.low_rank
    ('polite+brief', True)
    >>> both.save("vectors/both", base="./base")
    >>> abs(pv_merge.load("vectors/both").norm() - both.norm()) < 1e-5
    True
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

    @classmethod
    def load(cls, folder: str | Path) -> PreferenceVector:
        """Open a folder (or a name on the Hub) that ``save``, ``pv-merge extract`` or PEFT wrote; dense ones stay on disk.

        A PEFT adapter without a manifest counts as a vector by itself: its change of the base.
        Raises ``PvMergeError`` for a folder that holds neither.

        >>> import pv_merge
        >>> pv_merge.load("vectors/polite").preference
        'polite'
        """
        path = local_folder(folder)
        if not path.is_dir():
            raise PvMergeError(f"{folder}: no such folder")
        said = read_manifest(path, VECTOR_MANIFEST)
        manifest = said.data if said else {}
        name = (said and said.preference) or path.name
        if is_adapter(path):
            modules = Adapter(path).modules
            return cls(name, {weight_name(key): value for key, value in modules.items()}, manifest)
        if not manifest:
            raise PvMergeError(
                f"{folder}: holds no {VECTOR_MANIFEST}; it is a model, not a vector "
                "(make one with pv-merge extract POSITIVE NEGATIVE)"
            )
        return cls(name, {}, manifest, source=Checkpoint(path))

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

    def cosine(self, other: PreferenceVector) -> float:
        """Return cos(φ, other) over all weights; 0 where one of them is zero."""
        scale = self.norm() * other.norm()
        return float(self._dot(other) / scale) if scale else 0.0

    def _dot(self, other: PreferenceVector) -> float:
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

    def same_shape(self, other: PreferenceVector, name: str) -> None:
        """Raise ``PvMergeError`` where two vectors differ in the shape of a weight's change."""
        if self.shape(name) != other.shape(name):
            raise PvMergeError(
                f"{name}: {self.preference} has shape {list(self.shape(name))}, "
                f"{other.preference} {list(other.shape(name))}; are they of the same base?"
            )

    def __repr__(self) -> str:
        """Return preference, form, norm and base; a norm that would have to be read is left out."""
        said = [repr(self.preference)]
        if self.low_rank:
            ranks = [c.a.shape[0] for c in self._changes.values() if isinstance(c, LowRank)]
            said.append(f"rank {max(ranks, default=0)}")
        else:
            said.append("dense")
        norm = self.norm() if self._source is None else self._measured_norm()
        if norm is not None:
            said.append(f"norm {norm:.4g}")
        made_from = parse_manifest(self.manifest, self.preference).made_from
        if made_from and made_from.path:
            said.append(f"base {made_from.path}")
        return f"PreferenceVector({', '.join(said)})"

    def _measured_norm(self) -> float | None:
        found = (self.manifest.get("measures") or {}).get("norm")
        return float(found) if isinstance(found, int | float) else None

    def __add__(self, other: PreferenceVector) -> PreferenceVector:
        if not isinstance(other, PreferenceVector):
            return NotImplemented
        return combined(self, other, 1.0)

    def __radd__(self, other: int) -> PreferenceVector:
        """Return the vector itself for the 0 that ``sum`` begins with."""
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def __sub__(self, other: PreferenceVector) -> PreferenceVector:
        if not isinstance(other, PreferenceVector):
            return NotImplemented
        return combined(self, other, -1.0)

    def __neg__(self) -> PreferenceVector:
        return self * -1.0

    def __truediv__(self, divisor: float) -> PreferenceVector:
        if isinstance(divisor, bool) or not isinstance(divisor, Real):
            return NotImplemented
        return self * (1.0 / float(divisor))

    def __mul__(self, factor: float) -> PreferenceVector:
        if isinstance(factor, bool) or not isinstance(factor, Real):
            return NotImplemented
        if not math.isfinite(factor):
            raise PvMergeError(f"{self.preference}: a vector times {factor} is not a vector")
        return scaled(self, float(factor))

    __rmul__ = __mul__

    def save(
        self, folder: str | Path, base: str | Path | None = None, dtype: str = "float32"
    ) -> None:
        """Write the vector: a PEFT adapter if it is low-rank, else a folder that mergekit reads.

        ``base`` is the base model's folder (its config and the names of weights that do not move
        come from there); by default the one in the manifest. ``dtype`` is that of the deltas.
        """
        from pv_merge.artifacts.vector_folder import save_vector

        save_vector(self, Path(folder), base, dtype)
