"""``pv-merge run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pv_merge.recipe.checks.finding import Finding


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
    from pv_merge.merging.run import run, run_grid
    from pv_merge.recipe.grid import points, read_axes
    from pv_merge.recipe.opening import open_recipe

    reports = {}
    with bar("merge") as advance:

        def found(findings: list[Finding]) -> None:
            print_findings(findings, quiet=True)

        if etas:
            opened = open_recipe(recipe, found)
            grid = points(read_axes(etas, opened.recipe.preferences), {})
            reports = run_grid(
                opened,
                out,
                grid,
                report=not no_report,
                threads=threads,
                device=device,
                advance=advance,
            )
        else:
            reports[out] = run(
                recipe,
                out,
                report=not no_report,
                threads=threads,
                device=device,
                found=found,
                advance=advance,
            )
    if no_report:
        click.echo(f"merged into {out}")
        return
    for name, report in reports.items():
        print_report(report, name)
