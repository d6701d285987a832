"""A grid of eta, measured on one live model, into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pv_merge.artifacts.provenance import command_line, versions
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.bench import Bench, open_bench
from pv_merge.evaluation.journal import Point, point_key
from pv_merge.evaluation.measure import SILENT, Measure, Progress
from pv_merge.evaluation.measures.answers import AnswersMeasure
from pv_merge.evaluation.statistics import Estimate
from pv_merge.evaluation.sweep.results import Sweep, summarise
from pv_merge.recipe.grid import LARGE, Axes, base_point, checked_axes, points, shown_points
from pv_merge.recipe.opening import open_recipe

Finished = Callable[[Point, Mapping[str, Estimate]], None]
"""Told of each point that is measured, with its figures."""


def sweep(
    recipe: str | Path,
    eta: Mapping[str, Sequence[float]],
    output: str | Path,
    measures: Sequence[Measure] = (),
    *,
    prompts: Sequence[str] = (),
    yes: bool = False,
    progress: Progress = SILENT,
    finished: Finished = lambda point, figures: None,
) -> Sweep:
    """Measure a grid of eta on one model in memory; write and return what it says.

    ``eta`` has the values of each preference that is swept; the others keep the recipe's. The base
    is loaded once, and each point's weights are set in place. ``output/results.jsonl`` grows as
    points are measured, so that a killed sweep goes on where it was; at the end there are
    ``summary.json``, ``report.html`` and pictures. ``prompts`` are answered at a few points, to be
    read. ``progress`` hears of the work, ``finished`` of each point.

    Raises ``PvMergeError`` for a recipe with errors, a grid of one point, or of more than 64
    points without ``yes``.

    >>> import pv_merge
    >>> pairs = pv_merge.measure("pairs", "polite=pairs.jsonl")
    >>> found = pv_merge.sweep("recipe.yml", {"polite": [-1, 0, 1]}, "sweep", [pairs])
    >>> [point["polite"] for point in found.points]
    [-1.0, 0.0, 1.0]
    >>> found.report.name
    'report.html'
    """
    from pv_merge.evaluation.sweep.pictures import draw
    from pv_merge.evaluation.sweep.report import write

    opened = open_recipe(recipe)
    read = opened.recipe
    axes = checked_axes(eta, read.preferences)
    if not measures and not prompts:
        raise PvMergeError("nothing to measure: give --pairs NAME=FILE or --prompt TEXT")
    for prompt in prompts:
        if not prompt.strip() or prompt.encode("utf-8", "ignore").decode() != prompt:
            raise PvMergeError(f"--prompt {prompt!r}: expected a question, as text in UTF-8")
    folder = Path(output)
    answers = AnswersMeasure(prompts) if prompts else None
    everything = [*measures, *([answers] if answers else [])]
    with open_bench(opened, everything, folder / "results.jsonl") as bench:
        result = measure_grid(bench, axes, read.etas, answers, yes, progress, finished)
        result.prompts = list(prompts)
        provenance = {
            "recipe": str(recipe),
            "command": command_line(),
            "versions": versions(),
            "seed": 0,
            "measures": {measure.name: measure.identity() for measure in everything},
        }
        result.pictures = draw(result, folder)
        result.report = write(result, folder, result.pictures, provenance)
    return result


def measure_grid(
    bench: Bench,
    axes: Axes,
    etas: Point,
    answers: Measure | None = None,
    yes: bool = False,
    progress: Progress = SILENT,
    finished: Finished = lambda point, figures: None,
) -> Sweep:
    """Measure the base and every point of the grid, and return what they say.

    ``answers`` are taken at a few points only. Raises ``PvMergeError`` for a grid of more than 64 points without ``yes``; the base has been
    measured by then, so that the message can name the expected time.
    """
    base, grid = base_point(etas), points(axes, etas)
    counted = [measure for measure in bench.measures if measure is not answers]
    todo = [base, *(point for point in grid if point_key(point) != point_key(base))]
    if not counted:
        todo = []
    shown = shown_points(axes, etas) if answers is not None else []
    progress.started(
        bench.missing(todo, counted) + bench.missing(shown, [answers] if answers else [])
    )
    if counted:
        bench.take(base, base, progress.advance, counted)
    if len(grid) > LARGE and not yes:
        raise PvMergeError(
            f"{len(grid)} points take about {_expected(bench, len(grid))}; add --yes to measure them"
        )
    for point in todo or shown:
        if counted:
            bench.take(point, base, progress.advance, counted)
            finished(point, bench.estimates(point, base))
        if answers is not None and point in shown:
            bench.take(point, base, progress.advance, [answers])
    texts = []
    for point in shown:
        if answers is not None:
            record = bench.take(point, base, progress.advance, [answers])[answers.name]
            texts.append({"point": point, "answers": record["answers"]})
    return summarise(bench, axes, etas, counted, texts)


def _expected(bench: Bench, count: int) -> str:
    by_point: dict[str, float] = {}
    for point, _, seconds in bench.journal.seconds():
        by_point[point] = by_point.get(point, 0.0) + seconds
    seconds = count * (sum(by_point.values()) / len(by_point) if by_point else 0.0)
    if seconds > 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
