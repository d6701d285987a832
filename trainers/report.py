"""The table that closes a training run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from trainers.dpo import Outcome
from trainers.settings import DPOSettings


ROWS = {
    "steps": ("steps", "{:.0f}"),
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "margin": ("margin", "{:+.3f}"),
    "heldout_loss": ("held-out loss", "{:.4f}"),
    "heldout_accuracy": ("held-out accuracy", "{:.3f}"),
    "heldout_margin": ("held-out margin", "{:+.3f}"),
    "seconds": ("seconds", "{:.0f}"),
    "tokens_per_second": ("tokens per second", "{:.0f}"),
}


def print_outcomes(settings: DPOSettings, outcomes: list[Outcome]) -> None:
    """Print a column for each policy: loss, accuracy, margin, seconds, tokens per second."""
    table = Table(title=f"{settings.preference}: policies in {settings.output_dir}")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.polarity + ("\n(already there)" if outcome.skipped else ""), justify="right")
    for key, (label, form) in ROWS.items():
        if any(key in outcome.metrics for outcome in outcomes):
            cells = (form.format(o.metrics[key]) if key in o.metrics else "" for o in outcomes)
            table.add_row(label, *cells)
    Console().print(table)
    Console().print("loss, accuracy and margin: means over the last quarter of the steps", style="dim")
