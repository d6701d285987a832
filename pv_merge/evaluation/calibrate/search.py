"""Suggested eta from few measurements.

The search is Bayesian optimisation on an interpolated response surface
(``surface``), not Optuna: a figure at a point is exact for the items measured, smooth in
eta and costs a minute or more, while there are only one to four etas. A quadratic plus remainder then
says more after eight points than Optuna's tree-structured sampler, which starts with ten random ones;
it says how sure it is of points not measured; and it needs no further dependency.

Points lie on a grid, spread out first; then each next one has the largest expected gain that is
allowed (expected improvement times the probability of every constraint, Gardner et al. 2014). What
is suggested has always been measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.calibrate.goal import Constraint
from pv_merge.evaluation.calibrate.surface import Surface, expected_gain, fit
from pv_merge.evaluation.statistics import Estimate, bootstrap, known
from pv_merge.recipe.grid import Axes, count

Figures = Mapping[str, Estimate]
Take = Callable[[dict[str, float]], Figures]
"""Measures a point and returns its figures."""

Items = Callable[[dict[str, float] | None], Mapping[str, Sequence[float]]]
"""Returns the values behind the figures of a point, item by item; of the base for None."""

NEGLIGIBLE = 0.002
"""The search ends when the expected gain is below this share of the range of values seen."""


LARGEST = 100_000
"""Candidates of a search."""


@dataclass
class Trial:
    """One measured point."""

    eta: dict[str, float]
    figures: dict[str, Estimate]
    value: float
    """The goal's figure, turned so that more is better."""
    allowed: bool
    expected: float | None
    """What the surface said of the value before it was measured."""
    gain: float | None
    """The allowed gain that was expected of it."""


@dataclass
class Calibration:
    """How a search went, and what it suggests."""

    goal: str
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    confidence: dict[str, float] = field(default_factory=dict)
    """Probability of each constraint at the suggested eta, from its interval."""
    gain_left: float = 0.0
    """Largest expected gain of any point that was not measured, in the goal's unit."""
    grid: int = 0
    """Number of candidates."""
    finished: bool = False
    """Whether the search ended because nothing more was to be gained, not for lack of budget."""
    edges: list[str] = field(default_factory=list)
    """Preferences whose suggested eta is the first or the last of its candidates."""
    recipe: Path | None = None
    """The recipe with the suggested eta, once it is written."""


def search(
    take: Take,
    axes: Axes,
    goal: str,
    constraints: Sequence[Constraint],
    base: Figures,
    budget: int | None = None,
    minimize: bool = False,
    items: Items | None = None,
    told: Callable[[Trial], None] = lambda trial: None,
) -> Calibration:
    """Return the best allowed point found with at most ``budget`` measurements.

    ``items`` returns the values behind the figures of a point, or of the base where it is given
    None; with it the confidence in a bound that is relative to the base is that of paired values.
    ``budget`` is by default a third of the grid, at least 3 and at most 24. Raises
    ``PvMergeError`` where the grid is a single point, or too large.
    """
    if count(axes) < 2:
        raise PvMergeError("nothing to calibrate: the range holds a single point")
    if count(axes) > LARGEST:
        raise PvMergeError(
            f"the ranges make a grid of {count(axes)} points, over {LARGEST}; take larger steps"
        )
    names = list(axes)
    grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes.values())]
    scaled = _scaled(grid, axes)
    allowed_count = min(budget or min(24, max(3, len(grid) // 3)), len(grid))
    result = Calibration(goal, grid=len(grid))
    sign = -1.0 if minimize else 1.0
    measured: list[int] = []
    for index in spread(scaled, max(1, min(len(names) + 2, allowed_count - 1))):
        result.trials.append(_trial(take, grid[index], goal, sign, constraints, base, None, None))
        measured.append(index)
        told(result.trials[-1])
    while True:
        gains, means = _gains(result.trials, scaled, measured, constraints, base)
        seen = [trial.value for trial in result.trials]
        width = max(seen) - min(seen) or 1.0
        place = int(np.argmax(gains))
        result.gain_left = float(max(gains[place], 0.0))
        # Until a point is allowed, gains are probabilities of being so, and the search goes on.
        found = any(trial.allowed for trial in result.trials)
        if found and result.gain_left < NEGLIGIBLE * width:
            result.finished = True
            break
        if len(measured) >= allowed_count:
            break
        trial = _trial(
            take, grid[place], goal, sign, constraints, base, float(means[place]), result.gain_left
        )
        result.trials.append(trial)
        measured.append(place)
        told(trial)
    result.best = max((t for t in result.trials if t.allowed), key=lambda t: t.value, default=None)
    if result.best is not None:
        for constraint in constraints:
            paired = _paired_slack(result.best, constraint, items)
            margin = _plain_slack(result.best, constraint, base) if paired is None else paired
            result.confidence[constraint.text] = _above_zero(margin)
    return result


def spread(points: np.ndarray, wanted: int) -> list[int]:
    """Return indices of points far from each other, the middle first."""
    chosen = [int(np.argmin((points**2).sum(axis=1)))]
    while len(chosen) < wanted:
        square = ((points[:, None, :] - points[None, chosen, :]) ** 2).sum(axis=2)
        distance = square.min(axis=1)
        # Of equals the last, which has the largest etas: there the effect is plain.
        chosen.append(len(points) - 1 - int(np.argmax(distance[::-1])))
    return chosen


def _trial(
    take: Take,
    eta: dict[str, float],
    goal: str,
    sign: float,
    constraints: Sequence[Constraint],
    base: Figures,
    expected: float | None,
    gain: float | None,
) -> Trial:
    figures = dict(take(eta))
    allowed = all(c.slack(figures[c.figure].value, base) >= 0 for c in constraints)
    return Trial(eta, figures, sign * figures[goal].value, allowed, expected, gain)


def _gains(
    trials: Sequence[Trial],
    scaled: np.ndarray,
    measured: Sequence[int],
    constraints: Sequence[Constraint],
    base: Figures,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each grid point's expected allowed gain (−1 where measured) and expected value."""
    points = scaled[list(measured)]
    mean, deviation = fit(points, np.array([trial.value for trial in trials])).predict(scaled)
    likely = np.ones(len(scaled))
    for constraint in constraints:
        slack = [constraint.slack(trial.figures[constraint.figure].value, base) for trial in trials]
        surface: Surface = fit(points, np.array(slack))
        centre, spread_ = surface.predict(scaled)
        likely *= norm.cdf(centre / np.maximum(spread_, 1e-12))
    best = max((trial.value for trial in trials if trial.allowed), default=None)
    gains = likely if best is None else expected_gain(mean, deviation, best) * likely
    gains = gains.copy()
    gains[list(measured)] = -1.0
    return gains, mean


def _plain_slack(trial: Trial, constraint: Constraint, base: Figures) -> Estimate:
    """Return how far the figure is inside its bound, taking the base's figure as exact."""
    figure = trial.figures[constraint.figure]
    ends = [constraint.slack(value, base) for value in (figure.low, figure.high)]
    return Estimate(constraint.slack(figure.value, base), min(ends), max(ends), figure.n)


def _paired_slack(trial: Trial, constraint: Constraint, items: Items | None) -> Estimate | None:
    """Return the same for a bound relative to the base, item by item, where both have the items.

    A perplexity has none itself; its logarithm has, if the bound is a multiple of the base's.
    """
    if items is None or not constraint.factor:
        return None
    mine, base = items(trial.eta), items(None)
    figure, factor, shift = constraint.figure, constraint.factor, constraint.shift
    if figure not in mine and not shift and factor > 0:
        figure, factor, shift = f"{figure}.nats", 1.0, math.log(factor)
    old, new = base.get(figure), mine.get(figure)
    if not old or not new or len(old) != len(new):
        return None
    sign = 1.0 if constraint.at_most else -1.0
    pairs = zip(new, old, strict=True)
    slack = known([sign * (factor * before + shift - after) for after, before in pairs])
    return bootstrap(slack) if slack else None


def _above_zero(margin: Estimate) -> float:
    """Return the probability that a mean is above 0, taking its distribution as normal."""
    deviation = max((margin.high - margin.low) / (2 * 1.96), 1e-12)
    return round(float(norm.cdf(margin.value / deviation)), 4)


def _scaled(grid: Sequence[Mapping[str, float]], axes: Axes) -> np.ndarray:
    columns: list[Any] = []
    for name, values in axes.items():
        middle, half = (values[0] + values[-1]) / 2, (values[-1] - values[0]) / 2 or 1.0
        columns.append([(point[name] - middle) / half for point in grid])
    return np.array(columns).T
