"""What every part of the page is made of: JSON files, tables, intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path("benchmarks")


def read(name: str) -> Any:
    """Return a JSON file under benchmarks/, or None."""
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else None


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join('---' for _ in heads)}|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def interval(entry: Mapping[str, float], places: int = 2) -> str:
    """Return a value with its 95 % interval."""
    return f"{entry['value']:.{places}f} [{entry['low']:.{places}f}, {entry['high']:.{places}f}]"


def stage_command(stage: str) -> str:
    """Return the command that measures one claim."""
    return f"python -m benchmarks.evidence {stage}"


def commands(stage: str, command: str) -> list[str]:
    """Return the lines that say how a claim was measured."""
    return [f"`{stage_command(stage)}`, which runs `{command}`", ""]
