"""The answers at a few η, side by side where they fit, else one below the other."""

from __future__ import annotations

import textwrap
from typing import Any

from pv_merge.errors import harmless_text
from pv_merge.evaluation.statistics import signed
from pv_merge.evaluation.sweep.results import Sweep

COLUMN = 24
"""Characters that a column of answers needs."""
LINES = 7
"""Lines of a cell; a longer answer is shortened, and whole in report.html."""


def print_answers(sweep: Sweep, console: Any) -> None:
    """Print the answers to each prompt: a column for each η, if there are some and they fit."""
    count = len(sweep.answers)
    room = console.width // max(count, 1)
    if count > 1 and room >= COLUMN + 2:
        _print_columns(sweep, console, room - 3)
    else:
        _print_below(sweep, console)


def _print_columns(sweep: Sweep, console: Any, width: int) -> None:
    from rich.table import Table

    shortened = False
    for place, prompt in enumerate(sweep.prompts):
        console.print()
        table = Table(title=_plain(prompt), title_justify="left", title_style="bold")
        texts = [" ".join(item["answers"][place].split()) for item in sweep.answers]
        for item in sweep.answers:
            table.add_column(f"η {_name(sweep, item)}", width=width, overflow="fold")
        shown = [_shortened(text, width) for text in texts]
        shortened |= shown != texts
        table.add_row(*(_plain(text) for text in shown))
        console.print(table)
    if shortened:
        console.print("  answers that end in … are whole in report.html", style="dim")


def _print_below(sweep: Sweep, console: Any) -> None:
    for place, prompt in enumerate(sweep.prompts):
        console.print(f"\n[bold]{_plain(prompt)}[/bold]", highlight=False)
        for item in sweep.answers:
            console.print(
                f"  [cyan]{_name(sweep, item)}[/cyan]  {_plain(item['answers'][place])}",
                highlight=False,
            )


def _name(sweep: Sweep, item: dict[str, Any]) -> str:
    return ", ".join(f"{p} {signed(item['point'][p], '+g')}" for p in sweep.axes)


def _shortened(text: str, width: int) -> str:
    return " ".join(textwrap.wrap(text, width, max_lines=LINES, placeholder=" …"))


def _plain(text: str) -> str:
    """Return text that rich prints as it is, with its line breaks but no empty lines."""
    from rich.markup import escape

    lines = [" ".join(line.split()) for line in text.splitlines()]
    return escape(harmless_text("\n    ".join(line for line in lines if line)))
