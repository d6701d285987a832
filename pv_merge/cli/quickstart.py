"""``pv-merge quickstart``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="[DIR]", default="quickstart", type=click.Path(path_type=Path))
@click.option(
    "--train", is_flag=True, help="Train the policies here first (25 minutes on 2 cores)."
)
def command(folder: Path, train: bool) -> None:
    """Fetch a small real model, extract vectors, merge and measure, in DIR (default: quickstart).

    The recipes, pairs and policies come with the package and are written to DIR/recipes. Each step
    is a command that you could type, and is shown as one. A second call goes on where the first
    ended.
    """
    from pv_merge.start.quickstart import quickstart

    quickstart(folder, train=train, say=click.echo)
    click.echo(
        "\nDone: vectors in ./vectors, a merged model in ./merged/polite. "
        "What to try next, in the same folder:\n"
        "$ pv-merge chat recipes/quickstart/both.yml     # base and mix side by side\n"
        "$ pip install 'pv-merge[ui]' && pv-merge ui            # the same in a browser, with sliders\n"
        "$ pv-merge init brave                           # the files of a preference of your own"
    )
