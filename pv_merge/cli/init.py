"""``pv-merge init``."""

from __future__ import annotations

import click


@click.command()
@click.argument("name")
@click.option(
    "--base",
    default="./models/smollm2-135m-instruct",
    show_default=True,
    help="The base model: a folder, or a name on the Hub.",
)
def command(name: str, base: str) -> None:
    """Write ./NAME: a training config, a merge recipe and an empty file for the pairs."""
    from pv_merge.start.project import start_project

    lines = start_project(name, base)
    click.echo(f"./{name}: train.yml, merge.yml, pairs.jsonl")
    click.echo(f"Write a hundred pairs or more into {name}/pairs.jsonl, one a line, such as")
    click.echo(
        '  {"prompt": "How are you?", "chosen": "the answer you want", "rejected": "its opposite"}'
    )
    click.echo("Then, from this folder:")
    for line in lines:
        click.echo(line)
