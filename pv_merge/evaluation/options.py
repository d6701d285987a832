"""The measures that ``sweep``, ``evaluate`` and ``calibrate`` share, as command-line options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from pv_merge.evaluation.measure import Measure

Command = Callable[..., Any]

OPTIONS = (
    click.option(
        "--pairs",
        "pairs",
        multiple=True,
        metavar="NAME=FILE[:FORMAT]",
        help="Held-out pairs: log-prob margin, accuracies, implicit DPO reward margin.",
    ),
    click.option("--beta", default=0.1, show_default=True, help="DPO temperature of the reward margin."),
    click.option("--limit", type=click.IntRange(1), help="Measure on the first so many items of each file."),
)


def measure_options(command: Command) -> Command:
    """Add the options of every measure to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def build_measures(
    pairs: Sequence[str] = (), beta: float = 0.1, limit: int | None = None
) -> list[Measure]:
    """Return the measures that the options ask for."""
    from pv_merge.evaluation.pairs import read_pairs

    measures: list[Measure] = [read_pairs(text, beta, limit) for text in pairs]
    return measures
