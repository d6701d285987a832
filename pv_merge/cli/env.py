"""``pv-merge env``."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Show versions, devices and plugins in one block, for a report of a fault."""
    from pv_merge.start.environment import environment_report

    for line in environment_report():
        click.echo(line)
