"""``pv-merge pull``."""

from __future__ import annotations

import click


@click.command("pull")
@click.argument("name", metavar="NAMESPACE/NAME[@REVISION]")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="DIR",
    help="Copy it into this new folder; by default it stays in the Hub's cache.",
)
@click.option("--remote-code", is_flag=True, help="Fetch python files as well.")
def command(name: str, output: str | None, remote_code: bool) -> None:
    """Fetch a model, vector or policy from the Hub: safetensors, settings and texts, no code."""
    from pv_merge.hub.pull import pull

    def told(line: str) -> None:
        click.echo(line, err=True)

    click.echo(pull(name, output, remote_code=remote_code, told=told))
