"""``pv-merge sweep``: measure a grid of eta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pv_merge.evaluation.measures.build import build_measures, measure_options


@click.command()
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
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
@measure_options
def command(
    recipe_path: Path,
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

    from pv_merge.artifacts.provenance import command_line, versions
    from pv_merge.errors import PvMergeError
    from pv_merge.evaluation.measures.answers import AnswersMeasure
    from pv_merge.evaluation.session import open_bench, progress_bar
    from pv_merge.evaluation.sweep.pictures import draw
    from pv_merge.evaluation.sweep.report import print_tables, write
    from pv_merge.evaluation.sweep.sweep import run_sweep
    from pv_merge.recipe.grid import read_axes
    from pv_merge.recipe.opening import open_recipe

    opened = open_recipe(recipe_path)
    recipe = opened.recipe
    axes = read_axes(etas, recipe.preferences)
    measures = build_measures(**options)
    if not measures and not prompts:
        raise PvMergeError("nothing to measure: give --pairs NAME=FILE or --prompt TEXT")
    answers = AnswersMeasure(prompts) if prompts else None
    console = Console()
    with (
        open_bench(
            opened, [*measures, *([answers] if answers else [])], folder / "results.jsonl"
        ) as bench,
        progress_bar(console) as bar,
    ):
        task = bar.add_task("measuring", total=None)
        result = run_sweep(
            bench,
            axes,
            recipe.etas,
            answers,
            yes,
            advance=lambda count: bar.advance(task, count),
            started=lambda total: bar.update(
                task, total=max(total, 1), completed=0 if total else 1
            ),
            finished=lambda point, figures: bar.update(task, description=_at(point, axes)),
        )
        result.prompts = list(prompts)
    provenance = {
        "recipe": str(recipe_path),
        "command": command_line(),
        "versions": versions(),
        "seed": 0,
        "measures": {measure.name: measure.identity() for measure in bench.measures},
    }
    pictures = draw(result, folder)
    report = write(result, folder, pictures, provenance)
    print_tables(result, console)
    console.print(f"\n{report} holds all of it, with {len(pictures)} pictures.", highlight=False)


def _at(point: Any, axes: Any) -> str:
    return "after " + ", ".join(f"{name} {point[name]:g}" for name in axes)
