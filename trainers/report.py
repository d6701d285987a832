"""The table that closes a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from trainers import ranks

if TYPE_CHECKING:
    from trainers.session import Outcome

ROWS = {
    "steps": ("steps", "{:.0f}"),
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "margin": ("margin", "{:+.3f}"),
    "token_accuracy": ("token accuracy", "{:.3f}"),
    "heldout_loss": ("held-out loss", "{:.4f}"),
    "heldout_accuracy": ("held-out accuracy", "{:.3f}"),
    "heldout_margin": ("held-out margin", "{:+.3f}"),
    "heldout_token_accuracy": ("held-out token accuracy", "{:.3f}"),
    "seconds": ("seconds", "{:.0f}"),
    "tokens_per_second": ("tokens per second", "{:.0f}"),
}


def print_outcomes(title: str, outcomes: Sequence[Outcome]) -> None:
    """Print a column for each model: loss, accuracy, margin, seconds; then what was left out."""
    if ranks.rank() != 0:
        return
    table = Table(title=title)
    table.add_column("")
    for outcome in outcomes:
        heading = outcome.name + ("\n(already there)" if outcome.skipped else "")
        table.add_column(heading, justify="right")
    for key, (label, form) in ROWS.items():
        # One polarity says what the other does of the tokens; policies show their pairs' accuracy.
        if key.endswith("token_accuracy") and any("accuracy" in o.metrics for o in outcomes):
            continue
        if any(key in outcome.metrics for outcome in outcomes):
            cells = (form.format(o.metrics[key]) if key in o.metrics else "" for o in outcomes)
            table.add_row(label, *cells)
    console = Console()
    console.print(table)
    console.print(
        "loss, accuracy and margin: means over the last quarter of the steps", style="dim"
    )
    for line in dict.fromkeys(note for outcome in outcomes for note in outcome.notes):
        console.print(line, highlight=False)
