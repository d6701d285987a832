"""The options of every known measure, on a click command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def measure_options(command: Command) -> Command:
    """Add the options of every kind of measure to a click command."""
    from pv_merge.evaluation.measures import registry

    for option, repeated in reversed(registry.measure_options()):
        bounded = option.kind is int and option.minimum is not None
        command = click.option(
            option.flag,
            multiple=repeated,
            default=None if repeated else option.default,
            type=click.IntRange(option.minimum) if bounded else option.kind,
            metavar=option.metavar,
            show_default=option.default is not None,
            help=option.help,
        )(command)
    return command
