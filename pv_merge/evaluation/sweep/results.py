"""What a grid of eta says, as plain data: figures, steps, correlations, the Pareto front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pv_merge.evaluation.bench import Bench
from pv_merge.evaluation.journal import Point, point_key
from pv_merge.evaluation.measure import Measure
from pv_merge.evaluation.statistics import Estimate, change, pareto_front, spearman
from pv_merge.recipe.grid import Axes, base_point, points


@dataclass
class Step:
    """What one step of eta changed, pair by pair."""

    preference: str
    before: float
    after: float
    figure: str
    change: Estimate


@dataclass
class Sweep:
    """The results of a sweep."""

    axes: Axes
    points: list[dict[str, float | None]]
    figures: list[dict[str, Estimate]]
    """Figures at each point."""
    base: dict[str, Estimate]
    labels: dict[str, str]
    better: dict[str, int]
    steps: list[Step] = field(default_factory=list)
    rho: dict[str, dict[str, float]] = field(default_factory=dict)
    """Spearman's ρ by preference and figure."""
    front: list[int] = field(default_factory=list)
    """Points of the Pareto front over ``goals``."""
    goals: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    """``{"point", "answers"}`` of the points at which answers are shown."""
    prompts: list[str] = field(default_factory=list)
    report: Path | None = None
    """``report.html``, once it is written."""
    pictures: list[Path] = field(default_factory=list)

    @property
    def headlines(self) -> list[str]:
        """The first figure of each measure; the others have a dot in their name."""
        return [name for name in self.labels if "." not in name]

    def value(self, index: int, figure: str) -> Estimate | None:
        """Return one figure at one point."""
        return self.figures[index].get(figure)


MONOTONE = 4
"""Points of eta from which on a rank correlation is told."""


def summarise(
    bench: Bench,
    axes: Axes,
    etas: Point,
    measures: Sequence[Measure],
    answers: list[dict[str, Any]],
) -> Sweep:
    """Return what the measured points say."""
    base, grid = base_point(etas), points(axes, etas)
    figures = [bench.estimates(point, base) for point in grid]
    labels: dict[str, str] = {}
    better: dict[str, int] = {}
    for measure in measures:
        labels |= {
            k: v for k, v in measure.labels().items() if any(k in found for found in figures)
        }
        better |= measure.better()
    sweep = Sweep(axes, grid, figures, bench.estimates(base, base), labels, better, answers=answers)
    sweep.goals = [name for name in sweep.headlines if better.get(name)]
    if len(sweep.goals) > 1:
        rows = [[better[g] * found[g].value for g in sweep.goals] for found in figures]
        sweep.front = pareto_front(rows)
    groups = {f: getattr(m, "groups", None) for m in measures for f in m.labels()}
    for name in axes:
        sweep.steps += _steps(bench, sweep, name, base, groups)
    sweep.rho = {name: correlations(sweep, name) for name in axes}
    return sweep


def correlations(sweep: Sweep, preference: str) -> dict[str, float]:
    """Return Spearman's ρ of eta against each headline figure that eta moves.

    Of fewer than four points it says nothing, nor where the interval of the change from the first
    to the last holds 0. With several preferences it is the mean of ρ over the lines of the grid along this one, the
    others standing still.
    """
    values = sweep.axes[preference]
    if len(values) < MONOTONE:
        return {}
    ends = (preference, values[0], values[-1])
    still = {
        step.figure
        for step in sweep.steps
        if (step.preference, step.before, step.after) == ends
        and step.change.low <= 0 <= step.change.high
    }
    found = {}
    for figure in sweep.headlines:
        if figure in still:
            continue
        lines: dict[str, list[tuple[float, float]]] = {}
        for point, figures in zip(sweep.points, sweep.figures, strict=True):
            rest = point_key({k: v for k, v in point.items() if k != preference})
            eta = point[preference]
            assert eta is not None
            if figure in figures:
                lines.setdefault(rest, []).append((eta, figures[figure].value))
        rhos = [
            spearman(*zip(*line, strict=True)) for line in lines.values() if len(line) >= MONOTONE
        ]
        rhos = [rho for rho in rhos if not math.isnan(rho)]
        if rhos:
            found[figure] = sum(rhos) / len(rhos)
    return found


def _steps(
    bench: Bench, sweep: Sweep, name: str, base: Point, groups: dict[str, Any]
) -> list[Step]:
    """Return what each step along one axis changed, with the other axes nearest to 0."""
    values = sweep.axes[name]
    pairs = list(itertools.pairwise(values))
    wider = [p for p in ((-1.0, 0.0), (0.0, 1.0)) if set(p) <= set(values)]
    if len(values) >= MONOTONE:
        wider.append((values[0], values[-1]))
    pairs += [p for p in wider if p not in pairs]
    home = {other: min(line, key=abs) for other, line in sweep.axes.items()}
    fixed = {**sweep.points[0], **home}
    items = {value: bench.items({**fixed, name: value}, base) for value in values}
    found = []
    for before, after in pairs:
        for figure in sweep.headlines:
            found_change = change(
                items[after].get(figure), items[before].get(figure), groups.get(figure)
            )
            if found_change is not None:
                found.append(Step(name, before, after, figure, found_change))
    return found
