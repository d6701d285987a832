"""``pv-merge evaluate``: measure one model, or one recipe applied in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pv_merge.cli.measures import measure_options


@click.command()
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
@measure_options
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
    from rich.table import Table

    from pv_merge.artifacts.folders import write_json
    from pv_merge.errors import PvMergeError
    from pv_merge.evaluation.evaluate import evaluate_model, evaluate_recipe
    from pv_merge.evaluation.session import progress_bar
    from pv_merge.evaluation.statistics import Estimate

    path = Path(model)
    is_recipe = path.suffix in (".yml", ".yaml")
    if etas and not is_recipe:
        raise PvMergeError(f"--eta {etas[0]}: {model} is no recipe, so it has no eta")
    if base and is_recipe:
        raise PvMergeError(f"--base {base}: a recipe names its base itself")
    if output.suffix == ".jsonl":
        raise PvMergeError(
            f"-o {output}: expected a .json file; the .jsonl beside it keeps the parts"
        )
    from pv_merge.evaluation.measures.registry import build_measures

    measures = build_measures(**options)
    if not measures:
        raise PvMergeError(
            "nothing to measure: give --pairs, --refusal, --reward-model, --cost-model or --capability"
        )
    journal = output.with_suffix(".jsonl")
    console = Console()
    with progress_bar(console) as bar:
        task = bar.add_task("measuring", total=None)

        def started(total: int) -> None:
            bar.update(task, total=max(total, 1), completed=0 if total else 1)

        def advance(count: int) -> None:
            bar.advance(task, count)

        if is_recipe:
            result = evaluate_recipe(path, etas, measures, journal, started, advance)
        else:
            result = evaluate_model(model, base, measures, journal, started, advance)
    write_json(output, result)
    table = Table(title=str(model), title_justify="left")
    for heading in ("figure", "value (95 % interval)", "base"):
        table.add_column(heading, no_wrap=True)
    for name in result["labels"]:
        known = result["base_figures"].get(name)
        cells = [
            str(Estimate(**values)).replace("[", "\\[") if values else ""
            for values in (result["figures"][name], known)
        ]
        table.add_row(name, *cells)
    console.print(table)
    for name, label in result["labels"].items():
        console.print(f"  {name}: {label}", style="dim", highlight=False)
    console.print(f"written to {output}", highlight=False)
