"""Intervals, ranks and fronts, as pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
BLOCK = 1 << 20
"""Random indices drawn at a time."""


FEW = 30
"""Items below which a figure says how many there were."""


def rounded(value: float, form: str = ".3g") -> str:
    """Return a number with few digits; one that rounds to 0 has no sign."""
    text = format(value, form)
    return format(0.0, form) if float(text) == 0 else text


def signed(value: float, form: str = "+.2f") -> str:
    """Return a number with its sign; one that rounds to 0 has none."""
    text = format(value, form)
    return format(0.0, form.replace("+", "")) if float(text) == 0 else text


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval, in the measure's own unit."""

    value: float
    low: float
    high: float
    n: int
    """Number of values that the mean is over."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, rounded to six digits after the point."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        if self.low == self.high:
            return rounded(self.value)
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"

    @property
    def few(self) -> str:
        """The number of values where it is small, as it stands behind a label; else nothing."""
        return f", n = {self.n}" if self.n < FEW else ""


def bootstrap(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """Return the mean of ``values`` with its percentile bootstrap interval (2000 resamples).

    With ``groups`` (one for each value) whole groups are drawn, since answers to one prompt are not
    independent of each other. The same ``seed`` and groups draw the same resamples.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("bootstrap of no values")
    if groups is None:
        sums, counts = data, np.ones(data.size)
    else:
        places = _group_numbers(groups)
        sums = np.bincount(places, weights=data).astype(np.float64)
        counts = np.bincount(places).astype(np.float64)
    means = np.sort(_resampled_means(sums, counts, seed))
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(data.mean()), float(low), float(high), int(data.size))


def share(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """Return the mean of zeros and ones with its interval.

    Where all are alike every resample is too, and would claim certainty; there it is Wilson's
    interval (1927) with the number of groups, which for 0 of 10 is [0, 0.28].
    """
    found = bootstrap(values, groups, seed)
    if found.low != found.high or found.value not in (0.0, 1.0):
        return found
    count = found.n if groups is None else len(set(groups))
    reach = 1.96**2 / (count + 1.96**2)
    low, high = (0.0, reach) if found.value == 0 else (1 - reach, 1.0)
    return Estimate(found.value, low, high, found.n)


def paired_difference(
    after: Sequence[float],
    before: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Return the mean of ``after − before``, taken item by item, with its interval.

    Both measure the same items in one order, so what makes an item easy or hard cancels out. Items
    that either side does not know (NaN, such as an answer that a judge did not grade) are left out.
    Raises ``ValueError`` where none is left.
    """
    if len(after) != len(before):
        raise ValueError(f"paired values differ in number: {len(after)} and {len(before)}")
    moved = np.subtract(after, before)
    there = np.flatnonzero(~np.isnan(moved)).tolist()
    kept = None if groups is None else [groups[place] for place in there]
    return bootstrap(moved[there].tolist(), kept, seed)


def change(
    after: Sequence[float] | None,
    before: Sequence[float] | None,
    groups: Sequence[Hashable] | None = None,
) -> Estimate | None:
    """Return the paired difference of one figure, or None where both do not have the same items."""
    if not after or not before or len(after) != len(before) or len(after) < 2:
        return None
    if all(math.isnan(value) for value in np.subtract(after, before)):
        return None
    return paired_difference(after, before, groups)


def known(values: Sequence[float]) -> list[float]:
    """Return the values that are not NaN."""
    return [value for value in values if not math.isnan(value)]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's ρ, ties sharing their mean rank; NaN where one side is constant."""
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan  # SciPy says the same, with a warning
    return float(spearmanr(x, y).statistic)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices, in order, of points that no other one beats.

    More is better in every coordinate. A point is beaten by one that is at least as good in all
    coordinates and better in one.
    """
    data = np.asarray(points, dtype=np.float64)
    front = []
    for index, point in enumerate(data):
        better = (data >= point).all(axis=1) & (data > point).any(axis=1)
        if not better.any():
            front.append(index)
    return front


def _group_numbers(groups: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    size = len(sums)
    means = np.empty(RESAMPLES)
    rows = max(1, BLOCK // size)
    for start in range(0, RESAMPLES, rows):
        stop = min(start + rows, RESAMPLES)
        drawn = random.integers(0, size, (stop - start, size))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
