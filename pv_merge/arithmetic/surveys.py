"""What controls must know of a whole tensor before anything of it is written.

Each question is a pass over the tensor; no φ is ever held in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pv_merge.arithmetic.kernel_shape import BLOCK, COUNT_HIGH, COUNT_LOW, LANES, ROW
from pv_merge.arithmetic.native import survey_window
from pv_merge.arithmetic.windows import Load, Plan, Rules, Strength, scratch, tables

STEP = BLOCK
"""Elements of a window, unless said otherwise; always whole rows."""

_HIGH_BINS, _LOW_BINS = 1 << 16, 1 << 15


def needs_survey(strengths: Sequence[Strength], orthogonal: bool) -> bool:
    """Return whether a control must see a whole tensor before anything is written."""
    if orthogonal and len(strengths) > 1:
        return True
    return any(item.density < 1 or item.max_relative_norm is not None for item in strengths)


def survey(
    count: int, load: Load, strengths: Sequence[Strength], rules: Rules, step: int | None = None
) -> Plan:
    """Return the plan of a tensor of ``count`` elements, for one output, in windows of ``step``.

    In this order: ``density``, ``interference``, ``max_relative_norm``.
    """
    plan = Plan.plain([[item.eta for item in strengths]])
    look = _Survey(count, load, plan, rules, step or STEP)
    if any(item.density < 1 for item in strengths) and count:
        plan.sparse[:] = look.thresholds([item.density for item in strengths])
    if rules.orthogonal:
        for done in range(len(strengths) - 1):
            pairs = [(done, done), *((later, done) for later in range(done + 1, len(strengths)))]
            square, *products = look.products(pairs)
            for later, product in enumerate(products, start=done + 1):
                with np.errstate(over="ignore"):
                    plan.shares[later, done] = np.float32(product / square) if square else 0.0
    capped = [p for p, item in enumerate(strengths) if item.max_relative_norm is not None]
    if capped:
        origin, *squares = look.products([(-1, -1), *((p, p) for p in capped)])
        for p, square in zip(capped, squares, strict=True):
            limit = strengths[p].max_relative_norm
            assert limit is not None
            plan.etas[0, p] = capped_eta(strengths[p].eta, square**0.5, origin**0.5, limit)
    return plan


def capped_eta(eta: float, phi: float, base: float, limit: float) -> float:
    """Return ``eta``, reduced where ‖eta·phi‖ would exceed ``limit``·‖base‖; given both norms.

    Rounded to float32, so that a difference in the last digits of a norm cannot show.
    """
    size, bound = abs(eta) * phi, limit * base
    if not size or size <= bound:
        return eta
    return float(np.float32(eta * (bound / size)))


class _Survey:
    """Passes over a tensor."""

    def __init__(self, count: int, load: Load, plan: Plan, rules: Rules, step: int) -> None:
        self._count, self._load, self._plan, self._rules = count, load, plan, rules
        self._step = step

    def _pass(self, task: int, pairs: np.ndarray, counts: np.ndarray, lanes: np.ndarray) -> None:
        sparse = self._plan.sparse.copy()
        rows = scratch.take(self._plan.etas.shape[1])
        for start in range(0, self._count, self._step):
            count = min(self._step, self._count - start)
            base, parts, bounds = tables(self._load(start, count), self._rules.cast)
            survey_window(
                task, count, base, parts, bounds, sparse, self._plan.shares, pairs, rows, counts,
                lanes,
            )  # fmt: skip

    def products(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """Return inner products of the φ as they are so far; −1 is the base."""
        lanes = np.zeros((len(pairs), ROW))
        self._pass(LANES, np.array(pairs, np.int64), np.zeros((1, 1), np.int64), lanes)
        return [folded(row) for row in lanes]

    def thresholds(self, densities: Sequence[float]) -> np.ndarray:
        """Return for each φ the size from which on elements stay, and how many equal to it."""
        none = np.zeros((1, ROW))
        high = np.zeros((len(densities), _HIGH_BINS), np.int64)
        self._pass(COUNT_HIGH, np.zeros((len(densities), 2), np.int64), high, none)
        wanted = [max(1, int(density * self._count)) for density in densities]
        tops, above = zip(*map(_bin_of, high, wanted), strict=True)
        low = np.zeros((len(densities), _LOW_BINS), np.int64)
        self._pass(COUNT_LOW, np.array([(top, 0) for top in tops], np.int64), low, none)
        found = np.full((len(densities), 2), -1, np.int64)
        for p, density in enumerate(densities):
            if density <= 0:
                found[p] = (0x7FFFFFFF, 0)
            elif density < 1:
                digits, larger = _bin_of(low[p], wanted[p] - above[p])
                found[p] = (tops[p] * _LOW_BINS + digits, wanted[p] - above[p] - larger)
        return found


def _bin_of(counts: np.ndarray, wanted: int) -> tuple[int, int]:
    """Return the bin that holds the ``wanted``-th largest, and how many lie in the bins above."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, wanted))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


def folded(lanes: np.ndarray) -> float:
    """Return the sum of a row of sums, halved again and again: one order, everywhere."""
    while lanes.size > 1:
        half = lanes.size // 2
        with np.errstate(over="ignore", invalid="ignore"):
            lanes = lanes[:half] + lanes[half:]
    return float(lanes[0])


def inner_products(count: int, load: Load, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the inner products of pairs of a tensor's φ, by their numbers; −1 is the base."""
    number = len(load(0, 0).groups)
    return _Survey(count, load, Plan.plain([[1.0] * number]), Rules(), STEP).products(pairs)
