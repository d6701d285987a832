"""``pv-merge drift``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pv_merge.merging.drift import Drift


@click.command("drift")
@click.argument("base", type=click.Path())
@click.argument("model", type=click.Path())
@click.argument("more", nargs=-1, type=click.Path(), metavar="[VECTOR]...")
@click.option(
    "--vectors",
    multiple=True,
    required=True,
    type=click.Path(),
    help="Vectors of BASE; one or more.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Also draw them into this PNG file.")
@click.option(
    "--recipe",
    type=click.Path(dir_okay=False),
    help="Also write the recipe that undoes it, for pv-merge run.",
)
def command(
    base: str,
    model: str,
    more: tuple[str, ...],
    vectors: tuple[str, ...],
    as_json: bool,
    plot: str | None,
    recipe: str | None,
) -> None:
    """Show how far MODEL, a fine-tune of BASE, has moved along vectors, and the eta that undoes it.

    \b
    pv-merge drift ./models/base ./models/mine --vectors ./vectors/harmless ./vectors/polite
    """
    from pv_merge.artifacts.vector import PreferenceVector
    from pv_merge.cli.progress import bar
    from pv_merge.merging.drift import drift
    from pv_merge.merging.undoing import write_undoing

    names = [*vectors, *more]
    labels = [path.rstrip("/").removeprefix("./") for path in names]
    opened = {label: PreferenceVector.load(path) for label, path in zip(labels, names, strict=True)}
    with bar("drift") as advance:
        found = drift(base, model, opened, advance)
    if plot:
        from pv_merge.evaluation.drift_chart import draw_drift

        draw_drift(found, plot)
    written = (
        write_undoing(found, dict(zip(labels, names, strict=True)), Path(recipe))
        if recipe
        else None
    )
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)
    if recipe:
        click.echo(
            f"pv-merge run {recipe} OUT undoes it"
            if written
            else f"nothing to undo, {recipe} not written"
        )


def _print(found: Drift) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{found['model']} has moved from {found['base']} by {found['norm']:.4g}, "
        f"{found['relative_norm']:.2%} of its norm",
        soft_wrap=True,
        highlight=False,
    )
    table = Table()
    for name in ("vector", "‖φ‖", "cosine", "of random", "η held", "together", "suggested η"):
        table.add_column(name, justify="left" if name == "vector" else "right")
    for label, entry in found["vectors"].items():
        times = entry["cosine"] / entry["spread"] if entry["spread"] else 0.0
        table.add_row(
            label,
            f"{entry['norm']:.4g}",
            f"{entry['cosine']:+.4f}",
            f"{times:+.1f} σ",
            f"{entry['eta']:+.4f}",
            f"{entry['joint_eta']:+.4f}",
            f"{entry['suggested_eta']:.4g}" if entry["suggested_eta"] else "none",
        )
    console.print(table)
