"""``pv-merge inspect``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pv_merge.merging.inspection import Inspection


@click.command("inspect")
@click.argument("vectors", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Also draw them into this PNG file.")
def command(vectors: tuple[str, ...], as_json: bool, plot: str | None) -> None:
    """Show what VECTORS are like: norms, cosines, sign disagreement, interference.

    Several seeds of one preference show how stable it is; several preferences, how they interfere.
    """
    from pv_merge.artifacts.vector import PreferenceVector
    from pv_merge.cli.progress import bar
    from pv_merge.merging.inspection import inspect

    opened = {path.rstrip("/").removeprefix("./"): PreferenceVector.load(path) for path in vectors}
    with bar("inspect") as advance:
        figures = inspect(opened, advance)
    if plot:
        from pv_merge.evaluation.inspection_chart import draw_inspection

        draw_inspection(figures, plot)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    else:
        _print(figures)


def _print(figures: Inspection) -> None:
    from rich.console import Console
    from rich.table import Table

    from pv_merge.merging.halves import what_follows

    console = Console()
    table = Table()
    kinds = sorted(
        {kind for entry in figures["vectors"].values() for kind in entry["norm_by_kind"]}
    )
    for name in ("vector", "‖φ‖", "cos(+,−)", *kinds):
        table.add_column(name, justify="left" if name == "vector" else "right")
    for label, entry in figures["vectors"].items():
        cosine = entry["cosine_positive_negative"]
        cells = [f"{entry['norm_by_kind'].get(kind, 0.0):.4g}" for kind in kinds]
        table.add_row(
            label, f"{entry['norm']:.4g}", "" if cosine is None else f"{cosine:+.3f}", *cells
        )
    console.print(table)
    for label, entry in figures["vectors"].items():
        if (cosine := entry["cosine_positive_negative"]) is not None:
            console.print(f"{label}: {what_follows(cosine)}", soft_wrap=True, highlight=False)
    if "cosines" not in figures:
        return
    labels = figures["cosines"]["labels"]
    table = Table(title="cosines between vectors")
    for name in ("", *labels):
        table.add_column(name, justify="right")
    for label, row in zip(labels, figures["cosines"]["matrix"], strict=True):
        table.add_row(label, *(f"{value:+.3f}" for value in row))
    console.print(table)
    interference = figures["interference"]
    console.print(
        f"signs disagree in {figures['sign_disagreement']:.1%} of the weights that two or more move; "
        f"singular task interference {interference['mean']:.3g} "
        f"(rank {interference['rank']}, mean of {interference['matrices']} matrices)",
        soft_wrap=True,
    )
