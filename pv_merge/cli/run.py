"""``pv-merge run``."""

from __future__ import annotations

import click


@click.command("run")
@click.argument("recipe", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--no-report",
    is_flag=True,
    help="Leave out the loss report, which takes about a fifth of the time.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Worker threads; by default one for each core."
)
def command(recipe: str, out: str, no_report: bool, threads: int | None) -> None:
    """Merge RECIPE into the new folder OUT: mergekit's weights, bit for bit, several times faster."""
    from pv_merge.cli.findings import print_findings
    from pv_merge.cli.loss_table import print_report
    from pv_merge.cli.progress import bar
    from pv_merge.run import run

    with bar("merge") as advance:
        report = run(
            recipe,
            out,
            report=not no_report,
            threads=threads,
            found=lambda findings: print_findings(findings, quiet=True),
            advance=advance,
        )
    if report:
        print_report(report, out)
    else:
        click.echo(f"merged into {out}")
