"""``PreferenceVector``: the difference of two policies, dense or low-rank, with its manifest."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter import Adapter, weight_name
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, parse_manifest, read_manifest
from pv_merge.artifacts.reference import local_folder
from pv_merge.artifacts.vector_changes import VectorChanges
from pv_merge.artifacts.vector_folder import save_vector
from pv_merge.artifacts.vector_sums import combined, scaled
from pv_merge.errors import PvMergeError


class PreferenceVector(VectorChanges):
    """φ of one preference (Eq. 4): a change for each weight that it moves.

    Vectors over one base form a vector space: ``a + b``, ``a - b``, ``-a``, ``2 * a``, ``a / 2``.

    >>> import pv_merge
    >>> polite, brief = pv_merge.load("vectors/polite"), pv_merge.load("vectors/brief")
    >>> both = (polite + 2 * brief) / 2
    >>> both.preference, both.low_rank
    ('polite+brief', True)
    >>> both.save("vectors/both", base="./base")
    >>> abs(pv_merge.load("vectors/both").norm() - both.norm()) < 1e-5
    True
    """

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
        return PreferenceVector(*combined(self, other, 1.0))

    def __radd__(self, other: int) -> PreferenceVector:
        """Return the vector itself for the 0 that ``sum`` begins with."""
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def __sub__(self, other: PreferenceVector) -> PreferenceVector:
        if not isinstance(other, PreferenceVector):
            return NotImplemented
        return PreferenceVector(*combined(self, other, -1.0))

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
        return PreferenceVector(*scaled(self, float(factor)))

    __rmul__ = __mul__

    def save(
        self, folder: str | Path, base: str | Path | None = None, dtype: str = "float32"
    ) -> None:
        """Write the vector: a PEFT adapter if it is low-rank, else a folder that mergekit reads.

        ``base`` is the base model's folder (its config and the names of weights that do not move
        come from there); by default the one in the manifest. ``dtype`` is that of the deltas.
        """
        save_vector(self, Path(folder), base, dtype)
