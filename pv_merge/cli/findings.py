"""Findings of the check, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pv_merge.recipe.checks.finding import Finding

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_findings(findings: Sequence[Finding], *, quiet: bool = False) -> None:
    """Print a line for each finding to stderr; ``quiet`` leaves out notes."""
    for finding in findings:
        if quiet and finding.level == "note":
            continue
        label = click.style(finding.level, fg=COLOURS[finding.level])
        click.echo(f"{label}: {finding.text}", err=True)
