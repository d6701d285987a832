"""``pv-merge calibrate``: suggest eta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pv_merge.evaluation.measures.build import build_measures, measure_options


@click.command()
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
@click.option(
    "--maximize", metavar="FIGURE", help="What should be large, such as a name given to --pairs."
)
@click.option("--minimize", metavar="FIGURE", help="What should be small, instead.")
@click.option(
    "--subject-to",
    "subject_to",
    multiple=True,
    metavar="FIGURE<=BOUND",
    help='A bound: "refusal_safe<=0.1", "perplexity<=1.05*base".',
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=LOW:HIGH:STEP",
    help="Candidates of one preference (0:1.5:0.25).",
)
@click.option(
    "--evaluations",
    type=click.IntRange(2),
    help="Most points to measure; by default a third of the grid.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the recipe and the trace; a second call continues there.",
)
@measure_options
def command(
    recipe_path: Path,
    maximize: str | None,
    minimize: str | None,
    subject_to: tuple[str, ...],
    ranges: tuple[str, ...],
    evaluations: int | None,
    folder: Path,
    **options: Any,
) -> None:
    """Suggest eta from few measurements, under constraints.

    Writes DIR/recipe.yml with the suggested eta, DIR/calibration.json with every point measured, and
    DIR/results.jsonl, from which the same command goes on after a kill.

    \b
    pv-merge calibrate recipe.yml --maximize helpful --subject-to "perplexity<=1.05*base" \\
        --pairs helpful=heldout.jsonl --capability text.txt -o calibrated/
    """
    from rich.console import Console

    from pv_merge.artifacts.provenance import command_line, versions
    from pv_merge.errors import PvMergeError
    from pv_merge.evaluation.calibrate import output as calibrate_output
    from pv_merge.evaluation.calibrate.goal import check_figures, read_constraint, read_ranges
    from pv_merge.evaluation.calibrate.search import Trial, calibrate
    from pv_merge.evaluation.session import open_bench, progress_bar
    from pv_merge.recipe.grid import base_point
    from pv_merge.recipe.opening import open_recipe

    goal = maximize or minimize
    if goal is None or (maximize and minimize):
        raise PvMergeError("give one of --maximize FIGURE and --minimize FIGURE")
    opened = open_recipe(recipe_path)
    recipe = opened.recipe
    axes = read_ranges(ranges, recipe.preferences)
    constraints = [read_constraint(text) for text in subject_to]
    measures = build_measures(**options)
    known = [name for measure in measures for name in measure.labels()]
    if not known:
        raise PvMergeError("nothing to measure: give --pairs NAME=FILE, --refusal or --capability")
    check_figures([goal, *(constraint.figure for constraint in constraints)], known)
    base = base_point(recipe.etas)
    console = Console()
    with (
        open_bench(opened, measures, folder / "results.jsonl") as bench,
        progress_bar(console) as bar,
    ):
        task = bar.add_task("measuring", total=None)
        bench.take(base, base)
        reference = bench.estimates(base, base)
        check_figures([goal, *(constraint.figure for constraint in constraints)], list(reference))

        def take(eta: dict[str, float]) -> Any:
            point = {**base, **eta}
            bar.update(task, total=bench.missing([point]), completed=0)
            bench.take(point, base, lambda done: bar.advance(task, done))
            return bench.estimates(point, base)

        def items(eta: dict[str, float] | None) -> Any:
            return bench.items({**base, **(eta or {})}, base)

        def told(trial: Trial) -> None:
            said = ", ".join(f"{name} {value:g}" for name, value in trial.eta.items())
            names = dict.fromkeys([goal, *(constraint.figure for constraint in constraints)])
            figures = ", ".join(f"{name} {trial.figures[name]}" for name in names)
            state = "" if trial.allowed else "  not allowed"
            console.print(f"{said}: {figures}{state}", highlight=False, markup=False)

        result = calibrate(
            take, axes, goal, constraints, reference, evaluations, minimize is not None, items, told
        )
    why = f"eta suggested by pv-merge calibrate: {'most' if maximize else 'least'} {goal}" + (
        f", subject to {', '.join(subject_to)}" if subject_to else ""
    )
    provenance = {
        "recipe": str(recipe_path),
        "command": command_line(),
        "versions": versions(),
        "constraints": list(subject_to),
        "measures": {measure.name: measure.identity() for measure in measures},
    }
    path = calibrate_output.write(result, recipe.text, folder, provenance, why)
    if result.best is None:
        raise PvMergeError(
            f"none of {len(result.trials)} points is within {', '.join(subject_to)}; {folder}/calibration.json "
            "has them all; widen a bound or a --range"
        )
    said = ", ".join(f"{name} {value:g}" for name, value in result.best.eta.items())
    console.print(
        f"\nsuggested: {said}, after {len(result.trials)} of {result.grid} points", highlight=False
    )
    for text, probability in result.confidence.items():
        console.print(f"  {text}: probability {probability:.2f}", highlight=False)
    console.print(f"  expected gain of any other point: {result.gain_left:.2g}", highlight=False)
    if not result.finished:
        console.print("  more may be gained by more --evaluations (the budget ended the search)")
    console.print(f"written to {path}", highlight=False)
