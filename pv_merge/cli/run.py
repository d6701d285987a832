"""``pv-merge run``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click


@click.command("run")
@click.argument("recipe", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--eta",
    "etas",
    multiple=True,
    metavar="NAME=V1,V2,…",
    help="Write a model for each of these eta instead of the recipe's, all from one read; repeat it for a grid.",
)
@click.option("--no-report", is_flag=True, help="Leave out the loss report.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Worker threads; by default one for each core."
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where the arithmetic runs: cpu, cuda or cuda:N. The bytes are the same.",
)
def command(
    recipe: str,
    out: str,
    etas: tuple[str, ...],
    no_report: bool,
    threads: int | None,
    device: str,
) -> None:
    """Merge RECIPE into the new folder OUT: mergekit's weights, bit for bit, several times faster."""
    from pv_merge.cli.findings import print_findings
    from pv_merge.cli.loss_table import print_report
    from pv_merge.cli.progress import bar
    from pv_merge.hub.merge import merge, merge_grid
    from pv_merge.recipe.grid import parse_axes

    settings: dict[str, Any] = {"report": not no_report, "threads": threads, "device": device}
    settings["found"] = partial(print_findings, quiet=True)
    with bar("merge") as advance:
        if etas:
            reports = merge_grid(recipe, out, parse_axes(etas), **settings, advance=advance)
        else:
            reports = {out: merge(recipe, out, **settings, advance=advance)}
    if no_report:
        click.echo(f"merged into {out}")
        return
    for name, report in reports.items():
        print_report(report, name)
