"""``PreferenceVector``: the difference of two policies, dense or low-rank, with its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, concatenated, low_rank_dot
from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.base_hash import same_base
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, parse_manifest, read_manifest
from pv_merge.artifacts.reference import local_folder
from pv_merge.errors import PvMergeError

Change = Tensor | LowRank


class PreferenceVector:
    """φ of one preference (Eq. 4): a change for each weight that it moves.

    ``changes`` maps weight names to a dense tensor or a ``LowRank``; weights that are not named
    do not move. Vectors over one base form a vector space: ``a + b``, ``a - b``, ``-a``, ``2 * a``.
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
        """
        path = local_folder(folder)
        if not path.is_dir():
            raise PvMergeError(f"{folder}: no such folder")
        said = read_manifest(path, VECTOR_MANIFEST)
        manifest = said.data if said else {}
        name = (said and said.preference) or path.name
        if is_adapter(path):
            return cls(name, dict(Adapter(path).changes), manifest)
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
            self._same_shape(other, name)
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

    def _same_shape(self, other: PreferenceVector, name: str) -> None:
        if self.shape(name) != other.shape(name):
            raise PvMergeError(
                f"{name}: {self.preference} has shape {list(self.shape(name))}, "
                f"{other.preference} {list(other.shape(name))}; are they of the same base?"
            )

    def __add__(self, other: PreferenceVector) -> PreferenceVector:
        return self._combined(other, 1.0)

    def __sub__(self, other: PreferenceVector) -> PreferenceVector:
        return self._combined(other, -1.0)

    def __neg__(self) -> PreferenceVector:
        return self * -1.0

    def __mul__(self, factor: float) -> PreferenceVector:
        changes: dict[str, Change] = {}
        for name in self.names:
            change = self.change(name)
            if isinstance(change, LowRank):
                changes[name] = replace(change, scale=change.scale * factor)
            elif change.is_floating_point():
                changes[name] = change.float() * factor
        return PreferenceVector(self.preference, changes, {"derived": True, **_lineage(self)})

    __rmul__ = __mul__

    def _combined(self, other: PreferenceVector, sign: float) -> PreferenceVector:
        mine, theirs = (parse_manifest(v.manifest, v.preference).made_from for v in (self, other))
        if same_base(mine, theirs) is False:
            raise PvMergeError(
                f"{self.preference} and {other.preference} are vectors of different bases "
                f"({mine.path}, {theirs.path})"
            )
        changes: dict[str, Change] = {}
        for name in sorted({*self.names, *other.names}):
            parts = [(1.0, self)] if name in self else []
            parts += [(sign, other)] if name in other else []
            if len(parts) == 2:
                self._same_shape(other, name)
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
        joint = f"{self.preference}{'+' if sign > 0 else '-'}{other.preference}"
        name_ = self.preference if self.preference == other.preference else joint
        return PreferenceVector(name_, changes, {"derived": True, **_lineage(self)})

    def save(
        self, folder: str | Path, base: str | Path | None = None, dtype: str = "float32"
    ) -> None:
        """Write the vector: a PEFT adapter if it is low-rank, else a folder that mergekit reads.

        ``base`` is the base model's folder (its config and the names of weights that do not move
        come from there); by default the one in the manifest. ``dtype`` is that of the deltas.
        """
        from pv_merge.artifacts.vector_folder import save_vector

        save_vector(self, Path(folder), base, dtype)


def _lineage(vector: PreferenceVector) -> dict[str, Any]:
    return {key: vector.manifest[key] for key in ("base", "protected") if key in vector.manifest}
