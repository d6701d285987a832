"""``pv-merge report``."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("recipe", type=click.Path())
@click.argument("out", type=click.Path())
def command(recipe: str, out: str) -> None:
    """Say how much of each vector of RECIPE reached the merged model OUT, and write it beside it."""
    from pv_merge.cli.loss_table import print_report
    from pv_merge.cli.progress import bar
    from pv_merge.merging.report import report

    with bar("report") as advance:
        result = report(recipe, out, advance)
    print_report(result, out)
