"""``pv-merge evaluate``: measure one model, or one recipe applied in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pv_merge.cli.measures import MeasuringCommand
from pv_merge.errors import PvMergeError

if TYPE_CHECKING:
    from rich.console import Console

    from pv_merge.evaluation.evaluate import Evaluation


@click.command(cls=MeasuringCommand)
@click.argument("model", metavar="MODEL|RECIPE")
@click.option(
    "--eta", "etas", multiple=True, metavar="NAME=NUMBER", help="Another eta than the recipe's."
)
@click.option(
    "--base", metavar="MODEL", help="For a MODEL: what its reward margin is measured against."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file for the results; beside it a .jsonl keeps what is done.",
)
def command(
    model: str, etas: tuple[str, ...], base: str | None, output: Path, **options: Any
) -> None:
    """Measure a model folder, a Hub name, or a recipe applied in memory.

    Results go to FILE as JSON, with the command, versions and data hashes. What is measured is
    kept as it comes: after a kill, the same command goes on where it was.

    \b
    pv-merge evaluate recipe.yml --refusal xstest_prompts.csv --capability text.txt -o result.json
    """
    from rich.console import Console

    from pv_merge.cli.progress import counted
    from pv_merge.evaluation.evaluate import evaluate
    from pv_merge.evaluation.measures.registry import build_measures

    given, console = read_etas(etas), Console()
    with counted(console) as bar:
        result = evaluate(
            model,
            output,
            build_measures(**options),
            etas=given,
            base=base,
            progress=bar,
        )
    _print(result, model, console)
    console.print(f"written to {output}", highlight=False)


def read_etas(options: Sequence[str]) -> dict[str, float]:
    """Return the etas of ``NAME=NUMBER`` options."""
    found: dict[str, float] = {}
    for text in options:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise PvMergeError(f"--eta {text}: expected NAME=NUMBER, such as polite=0.5") from None
        if found.setdefault(name, number) != number:
            raise PvMergeError(f"--eta {text}: {name} is given twice")
    return found


def _print(result: Evaluation, title: str, console: Console) -> None:
    from rich.table import Table

    from pv_merge.evaluation.statistics import rounded

    table = Table(title=title, title_justify="left")
    headings = ["figure", "value (95 % interval)", "base"]
    for heading in [*headings, "change, paired"] if result.changes else headings:
        table.add_column(heading, no_wrap=True)
    for name in result.labels:
        found = [result.figures[name], result.base_figures.get(name), result.changes.get(name)]
        cells = ["" if e is None else str(e).replace("[", "\\[") for e in found]
        if result.changes and found[1]:
            cells[1] = rounded(found[1].value)
        table.add_row(name, *cells[: len(table.columns) - 1])
    console.print(table)
    for name, label in result.labels.items():
        few = result.figures[name].few
        console.print(f"  {name}: {label}{few}", style="dim", highlight=False)
    if result.subject.get("base"):
        console.print(f"  base: {result.subject['base']}", style="dim", highlight=False)
