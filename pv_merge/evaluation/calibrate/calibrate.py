"""A suggested eta for a recipe, into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pv_merge.artifacts.provenance import command_line, versions
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.bench import Bench, open_bench
from pv_merge.evaluation.calibrate.goal import (
    Constraint,
    Range,
    candidates,
    check_figures,
    read_constraint,
)
from pv_merge.evaluation.calibrate.output import write
from pv_merge.evaluation.calibrate.search import Calibration, Trial, search
from pv_merge.evaluation.measure import SILENT, Measure, Progress
from pv_merge.evaluation.statistics import Estimate
from pv_merge.recipe.grid import Axes, base_point
from pv_merge.recipe.opening import open_recipe


def calibrate(
    recipe: str | Path,
    output: str | Path,
    measures: Sequence[Measure],
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    subject_to: Sequence[str] = (),
    ranges: Mapping[str, Range] | None = None,
    evaluations: int | None = None,
    progress: Progress = SILENT,
    told: Callable[[Trial], None] = lambda trial: None,
) -> Calibration:
    """Suggest eta from few measurements, under constraints.

    What is to be large or small is one figure of ``measures``; ``subject_to`` has bounds such as
    ``"perplexity<=1.05*base"``, ``ranges`` the (low, high, step) of a preference, by default
    (0, 1.5, 0.25). At most ``evaluations`` points are measured, by default a third of the grid.
    Writes ``output/recipe.yml`` with the suggested eta, ``calibration.json`` with every point, and
    ``results.jsonl``, from which the same call goes on after a kill. ``progress`` hears of the work,
    ``told`` of each point.

    Raises ``PvMergeError`` for a recipe with errors, a figure that no measure gives, and where no
    point is within the bounds (``calibration.json`` is written then).

    >>> import pv_merge
    >>> pairs = pv_merge.measure("pairs", "polite=pairs.jsonl")
    >>> found = pv_merge.calibrate(
    ...     "recipe.yml", "calibrated", [pairs], maximize="polite", evaluations=3,
    ...     subject_to=["polite.accuracy>=0"], ranges={"polite": (-1, 1, 0.5)},
    ... )
    >>> len(found.trials), found.best.eta == found.trials[-1].eta or found.best in found.trials
    (3, True)
    >>> found.recipe.name
    'recipe.yml'
    """
    goal = maximize or minimize
    if goal is None or (maximize and minimize):
        raise PvMergeError("give one of --maximize FIGURE and --minimize FIGURE")
    opened, folder = open_recipe(recipe), Path(output)
    read = opened.recipe
    axes = candidates(ranges or {}, read.preferences)
    constraints = [read_constraint(text) for text in subject_to]
    wanted = [goal, *(constraint.figure for constraint in constraints)]
    known = [name for measure in measures for name in measure.labels()]
    if not known:
        raise PvMergeError("nothing to measure: give --pairs NAME=FILE, --refusal or --capability")
    check_figures(wanted, known)
    base = base_point(read.etas)
    with open_bench(opened, measures, folder / "results.jsonl") as bench:
        progress.started(bench.missing([base]))
        bench.take(base, base, progress.advance)
        check_figures(wanted, list(bench.estimates(base, base)))
        points = _Points(bench, base, progress)
        result = points.search(axes, goal, constraints, evaluations, minimize is not None, told)
        provenance = {
            "recipe": str(recipe),
            "command": command_line(),
            "versions": versions(),
            "constraints": list(subject_to),
            "measures": {measure.name: measure.identity() for measure in measures},
        }
        why = f"eta suggested by pv-merge calibrate: {'most' if maximize else 'least'} {goal}" + (
            f", subject to {', '.join(subject_to)}" if subject_to else ""
        )
        path = write(result, read.text, folder, provenance, why)
    if result.best is None:
        raise PvMergeError(
            f"none of {len(result.trials)} points is within {', '.join(subject_to)}; "
            f"{folder}/calibration.json has them all; widen a bound or a --range"
        )
    result.recipe = path
    best = result.best.eta
    result.edges = [
        n for n, line in axes.items() if len(line) > 1 and best[n] in (line[0], line[-1])
    ]
    return result


class _Points:
    """The points of a recipe as the search asks for them, measured when first asked for."""

    def __init__(
        self,
        bench: Bench,
        base: dict[str, float | None],
        progress: Progress,
    ) -> None:
        self._bench, self._base = bench, base
        self._progress = progress

    def search(
        self,
        axes: Axes,
        goal: str,
        constraints: Sequence[Constraint],
        budget: int | None,
        minimize: bool,
        told: Callable[[Trial], None],
    ) -> Calibration:
        """Search from the base's figures."""
        reference = self._bench.estimates(self._base, self._base)
        return search(
            self._take, axes, goal, constraints, reference, budget, minimize, self._items, told
        )

    def _take(self, eta: dict[str, float]) -> dict[str, Estimate]:
        point = {**self._base, **eta}
        self._progress.started(self._bench.missing([point]))
        self._bench.take(point, self._base, self._progress.advance)
        return self._bench.estimates(point, self._base)

    def _items(self, eta: dict[str, float] | None) -> dict[str, list[float]]:
        return self._bench.items({**self._base, **(eta or {})}, self._base)
