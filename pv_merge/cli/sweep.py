"""``pv-merge sweep``: measure a grid of eta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pv_merge.cli.measures import MeasuringCommand

if TYPE_CHECKING:
    from pv_merge.cli.progress import Counted
    from pv_merge.evaluation.journal import Point
    from pv_merge.evaluation.statistics import Estimate
    from pv_merge.evaluation.sweep.sweep import Finished


@click.command(cls=MeasuringCommand)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--eta",
    "etas",
    multiple=True,
    metavar="NAME=-1,0,1",
    help="Values of one preference's eta; repeat for a grid.",
)
@click.option(
    "--prompt", "prompts", multiple=True, help="Print the answers to this at eta −1, 0, 1."
)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for results; a second call continues there.",
)
@click.option("--yes", is_flag=True, help="Measure a grid of more than 64 points.")
def command(
    recipe: Path,
    etas: tuple[str, ...],
    prompts: tuple[str, ...],
    folder: Path,
    yes: bool,
    **options: Any,
) -> None:
    """Measure a grid of eta on one model in memory.

    The base is loaded once, and each point's weights are set in place. Results go to
    DIR/results.jsonl as they come, so that a killed sweep goes on where it was; at the end there
    are tables, pictures, summary.json and report.html.

    \b
    pv-merge sweep recipe.yml --eta polite=-1,-0.5,0,0.5,1 \\
        --pairs polite=heldout.jsonl --prompt "How do I boil an egg?" -o sweep/
    """
    from rich.console import Console

    from pv_merge.cli.progress import counted
    from pv_merge.evaluation.measures.registry import build_measures
    from pv_merge.evaluation.sweep.report import print_tables
    from pv_merge.evaluation.sweep.sweep import sweep
    from pv_merge.recipe.grid import parse_axes

    axes = parse_axes(etas)
    measures, console = build_measures(**options), Console()
    with counted(console) as bar:
        told: dict[str, Any] = {"progress": bar, "finished": _after(bar, axes)}
        result = sweep(recipe, axes, folder, measures, prompts=prompts, yes=yes, **told)
    print_tables(result, console)
    count = len(result.pictures)
    pictures = f"{count} {'picture' if count == 1 else 'pictures'}"
    console.print(f"\n{result.report} holds all of it, with {pictures}.", highlight=False)


def _after(bar: Counted, axes: Iterable[str]) -> Finished:
    def say(point: Point, figures: Mapping[str, Estimate]) -> None:
        bar.describe("after " + ", ".join(f"{name} {point[name]:g}" for name in axes))

    return say
