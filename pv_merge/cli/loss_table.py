"""The loss report, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pv_merge.merging.loss import MergeReport


def print_report(report: MergeReport, out: str) -> None:
    """Print a row for each preference, and a warning where too little of one arrived."""
    from rich.console import Console
    from rich.table import Table

    from pv_merge.merging.loss import warnings

    table = Table(title=f"{out}: what reached the output's dtype")
    for name in ("preference", "eta", "‖φ‖", "‖η·φ‖/‖base‖", "share that arrived"):
        table.add_column(name, justify="left" if name == "preference" else "right")
    for name, entry in report["preferences"].items():
        norm = "" if entry["norm"] is None else f"{entry['norm']:.4g}"
        eta = "by layer" if entry["eta"] is None else f"{entry['eta']:+g}"
        table.add_row(name, eta, norm, f"{entry['relative_step']:.3%}", f"{entry['share']:.1%}")
    Console().print(table)
    for line in warnings(report):
        click.echo(f"{click.style('warning', fg='yellow')}: {line}", err=True)
