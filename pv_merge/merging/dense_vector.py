"""A dense preference vector, written by the same pass as a merge: φ alone, without the base."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pv_merge.arithmetic.low_rank_rows import dense
from pv_merge.arithmetic.rounding_noise import DIGITS, SAMPLE, noise_share, rounding_noise
from pv_merge.arithmetic.stored import NAMED, is_weight
from pv_merge.arithmetic.windows import NEGATIVE, POSITIVE, VECTOR, Rules, Strength, Sums
from pv_merge.artifacts.byte_ranges import parts_of, ranges
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.output_files import OutputFiles
from pv_merge.artifacts.policy import Policy
from pv_merge.artifacts.weights_file import KINDS, floats
from pv_merge.merging.layout import Sheet, Source, Weight
from pv_merge.merging.policy_pair import PolicyPair
from pv_merge.merging.stream import Pass, Target
from pv_merge.merging.sums import VectorMeasures

SIDES = ("positive", "negative")

RUN = 1024
"""Elements next to each other that are looked at for rounding noise."""


class VectorLayout:
    """Which tensors a dense vector has: one for each of the base's, as mergekit asks for.

    Weights that neither side moves are zeros in the base's dtype, which is exact and half the size;
    buffers are copied.
    """

    hint = ""

    def __init__(self, base: Checkpoint, pair: PolicyPair, dtype: str) -> None:
        self.base, self.sides, self._dtype = base, pair.both, NAMED[dtype]
        self.places = ranges(base.parts)
        held = (side.checkpoint for side in self.sides)
        self.inputs = {found.folder: ranges(found.parts) for found in held if found is not None}
        weights = [name for name, place in self.places.items() if is_weight(place.dtype)]
        self._moved = {
            name for name in weights if any(self._moves(side, name) for side in self.sides)
        }

    @property
    def elements(self) -> int:
        """Elements of all weights."""
        return sum(place.elements for place in self.places.values() if is_weight(place.dtype))

    def _moves(self, side: Policy, name: str) -> bool:
        if side.checkpoint is None:
            return side.factors(name) is not None
        own, base = self.inputs[side.checkpoint.folder][name], self.places[name]
        return own.dtype != base.dtype or any(
            bytes(left) != bytes(right)
            for left, right in zip(parts_of(own), parts_of(base), strict=True)
        )

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return (dtype, shape) of every tensor."""
        return {name: (self._stored(name), place.shape) for name, place in self.places.items()}

    def _stored(self, name: str) -> str:
        return self._dtype if name in self._moved else self.places[name].dtype

    def rules(self, name: str, report: bool) -> Rules:
        """Return how one weight's φ is written: alone, to nearest."""
        stored = self._stored(name)
        return Rules(
            name, stochastic=False, round_to=stored, stored=stored, report=report, alone=True
        )

    def weight(self, name: str, etas: Sequence[Mapping[str, float]]) -> Weight:
        """Return what one weight's φ is made of."""
        found = {}
        for label, side, sign in zip(SIDES, self.sides, (1.0, -1.0), strict=True):
            source = self._source(side, name, sign) if name in self._moved else None
            if source is not None:
                role = (
                    VECTOR if side.checkpoint is None else int(POSITIVE if sign > 0 else NEGATIVE)
                )
                found[label] = ((role, source, str(side)),)
        members = tuple(range(len(found)))
        sheet = Sheet((0,), members, (tuple(Strength(1.0) for _ in found),), False)
        return Weight(name, self.places[name], tuple(found), tuple(found.values()), (sheet,))

    def noise(self, name: str) -> float:
        """Return the expected Σ error² of a weight's φ that comes from sides stored in 16 bits."""
        held = [side.checkpoint for side in self.sides if side.checkpoint is not None]
        narrow = [found for found in held if found.infos[name].dtype in DIGITS]
        elements = self.places[name].elements
        if not narrow or not elements or name not in self._moved:
            return 0.0
        first, second = (self._sample(side, name) for side in self.sides)
        weights, dtype = _sample_of(narrow[0], name), narrow[0].infos[name].dtype
        return rounding_noise(first - second, weights, dtype, len(narrow)) * elements

    def _sample(self, side: Policy, name: str) -> np.ndarray:
        """Return some elements of a side's delta."""
        if side.checkpoint is not None:
            own, base = _sample_of(side.checkpoint, name), _sample_of(self.base, name)
            delta: np.ndarray = own - base
            return delta
        change = side.factors(name)
        if change is None:
            return np.zeros(1, np.float32)
        whole = dense(change).ravel()
        return np.concatenate([whole[at : at + n] for at, n in _runs(whole.size)])

    def _source(self, side: Policy, name: str, sign: float) -> Source | None:
        if side.checkpoint is not None:
            return self.inputs[side.checkpoint.folder][name]
        change = side.factors(name)
        return None if change is None else change.times(sign)


def _sample_of(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """Return some elements of a stored tensor in float32."""
    dtype = checkpoint.infos[name].dtype
    raw = checkpoint.raw(name).view(KINDS[dtype])
    found = np.concatenate([raw[start : start + count] for start, count in _runs(raw.size)])
    return floats(found.view(np.uint8), dtype)


def _runs(elements: int) -> list[tuple[int, int]]:
    """Return (start, count) of what is looked at of a tensor: all, or runs spread over it."""
    if elements <= SAMPLE:
        return [(0, elements)]
    step = elements // (SAMPLE // RUN)
    return [(start, RUN) for start in range(0, elements - RUN, step)]


class Measures:
    """Inner products of the two sides' deltas, collected while the vector is written."""

    def __init__(self, exact: bool) -> None:
        self._exact = exact
        """Whether what is written is φ itself, not rounded."""
        self._parts: dict[tuple[str, int], tuple[float, float, float, float]] = {}
        self._lock = threading.Lock()

    def take(
        self,
        name: str,
        start: int,
        preferences: Sequence[str],
        etas: np.ndarray,
        sums: Sums,
        target: int,
    ) -> None:
        """Take what kernels found of a part."""
        gram = np.zeros((2, 2))
        at = [SIDES.index(label) for label in preferences]
        gram[np.ix_(at, at)] = np.triu(sums.gram)
        written = float(sums.change[target])
        phi = written if self._exact else float(gram[0, 0] + 2 * gram[0, 1] + gram[1, 1])
        found = (float(gram[0, 0]), float(gram[1, 1]), -float(gram[0, 1]), max(phi, 0.0))
        with self._lock:
            self._parts[name, start] = found

    def to_dict(self) -> VectorMeasures:
        """Return norms, the cosine of the sides, and how many tensors move."""
        table = np.array([self._parts[key] for key in sorted(self._parts)]).reshape(-1, 4)
        positive, negative, both, phi = (float(value) for value in table.sum(0))
        moved = {name for (name, _), part in self._parts.items() if part[3] > 0}
        scale = (positive * negative) ** 0.5
        return {
            "norm": phi**0.5,
            "norm_positive": positive**0.5,
            "norm_negative": negative**0.5,
            "cosine_positive_negative": both / scale if scale else 0.0,
            "tensors_moved": len(moved),
        }


def write_difference(
    work: Path,
    base: Checkpoint,
    pair: PolicyPair,
    dtype: str,
    advance: Callable[[int, int], None],
) -> VectorMeasures:
    """Write positive − negative for every weight, and return its measures.

    ``advance`` is told (elements done, elements in all).
    """
    layout = VectorLayout(base, pair, dtype)
    measures = Measures(dtype in ("float32", "float64"))
    done = 0

    def moved(elements: int) -> None:
        nonlocal done
        done += elements
        advance(done, layout.elements)

    files = OutputFiles(work, layout.tensors())
    try:
        Pass(layout, [Target({}, files, measures)], moved).run()
    finally:
        files.close()
    found = measures.to_dict()
    noise = sum(map(layout.noise, layout.places))
    if noise:
        found["rounding_noise"] = noise_share(noise, found["norm"] ** 2)
    return found
