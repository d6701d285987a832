"""``pv-merge calibrate``: suggest eta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pv_merge.cli.measures import MeasuringCommand

if TYPE_CHECKING:
    from rich.console import Console

    from pv_merge.evaluation.calibrate.search import Calibration, Trial


@click.command(cls=MeasuringCommand)
@click.argument("recipe", type=click.Path(path_type=Path))
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
def command(
    recipe: Path,
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

    from pv_merge.cli.progress import counted
    from pv_merge.evaluation.calibrate.calibrate import calibrate
    from pv_merge.evaluation.calibrate.goal import read_ranges
    from pv_merge.evaluation.measures.registry import build_measures

    measures, console = build_measures(**options), Console()
    with counted(console) as bar:
        result = calibrate(
            *(recipe, folder, measures),
            maximize=maximize,
            minimize=minimize,
            subject_to=subject_to,
            ranges=read_ranges(ranges),
            evaluations=evaluations,
            progress=bar,
            told=lambda trial: _print_trial(trial, maximize or minimize, subject_to, console),
        )
    _print(result, console)


def _print_trial(
    trial: Trial, goal: str | None, subject_to: Sequence[str], console: Console
) -> None:
    from pv_merge.evaluation.calibrate.goal import read_constraint

    names = dict.fromkeys([str(goal), *(read_constraint(text).figure for text in subject_to)])
    figures = ", ".join(f"{name} {trial.figures[name]}" for name in names)
    state = "" if trial.allowed else "  not allowed"
    console.print(f"{_named(trial.eta)}: {figures}{state}", highlight=False, markup=False)


def _print(result: Calibration, console: Console) -> None:
    assert result.best is not None  # otherwise it has raised
    count = len(result.trials)
    console.print(
        f"\nsuggested: {_named(result.best.eta)}, after {count} of {result.grid} points",
        highlight=False,
    )
    for text, probability in result.confidence.items():
        console.print(f"  {text}: probability {probability:.2f}", highlight=False)
    left = f"{result.gain_left:.2g}" if result.gain_left >= 0.001 else "under 0.001"
    console.print(f"  expected gain of any other point: {left}", highlight=False)
    for name in result.edges:
        console.print(
            f"  {name} is at the edge of its range: the best may lie beyond; say a wider --range",
            highlight=False,
        )
    if not result.finished:
        console.print("  more may be gained by more --evaluations (the budget ended the search)")
    console.print(f"written to {result.recipe}", highlight=False)


def _named(eta: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in eta.items())
