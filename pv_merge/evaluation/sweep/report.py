"""What a sweep says: terminal tables, ``summary.json``, and ``report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.evaluation.statistics import Estimate, signed
from pv_merge.evaluation.sweep.answers import print_answers
from pv_merge.evaluation.sweep.page import page
from pv_merge.evaluation.sweep.pictures import point_name
from pv_merge.evaluation.sweep.results import Step, Sweep

WIDTH = 12
"""Characters of a column's heading, so that four figures fit into 80 columns."""


def summary(sweep: Sweep, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the report says, as JSON values."""
    return {
        **provenance,
        "axes": sweep.axes,
        "labels": sweep.labels,
        "base": _figures(sweep.base),
        "points": [
            {"eta": point, "figures": _figures(figures)}
            for point, figures in zip(sweep.points, sweep.figures, strict=True)
        ],
        "spearman": sweep.rho,
        "steps": [
            {
                "preference": step.preference,
                "from": step.before,
                "to": step.after,
                "figure": step.figure,
                "change": step.change.to_dict(),
            }
            for step in sweep.steps
        ],
        "pareto": {"over": sweep.goals, "points": [sweep.points[i] for i in sweep.front]},
        "prompts": sweep.prompts,
        "answers": sweep.answers,
    }


def write(sweep: Sweep, folder: Path, pictures: Sequence[Path], provenance: dict[str, Any]) -> Path:
    """Write ``summary.json`` and ``report.html``; return the report's path."""
    write_json(folder / "summary.json", summary(sweep, provenance))
    path = folder / "report.html"
    temporary = folder / ".report.html"
    temporary.write_text(page(sweep, pictures, provenance), encoding="utf-8")
    temporary.replace(path)
    return path


def print_tables(sweep: Sweep, console: Any) -> None:
    """Print eta against each figure, what each step changed, and the answers."""
    from rich.table import Table

    if sweep.labels:
        table = Table(title="eta against each measure (95 % intervals)", title_justify="left")
        fits = len(sweep.axes) + len(sweep.labels) <= max(5, console.width // 16)
        shown = list(sweep.labels) if fits else sweep.headlines
        for name in sweep.axes:
            table.add_column(f"η {name}", justify="right", no_wrap=True)
        for name in shown:
            table.add_column(_heading(name), justify="right", no_wrap=True)
        for point, figures in zip(sweep.points, sweep.figures, strict=True):
            etas = [f"{point[name]:g}" for name in sweep.axes]
            table.add_row(*etas, *(_lines(figures.get(name)) for name in shown))
        console.print(table)
        for name in shown:
            few = next((found[name].few for found in sweep.figures if name in found), "")
            console.print(f"  {name}: {sweep.labels[name]}{few}", style="dim", highlight=False)
        if not fits:
            console.print("  the other figures are in report.html and summary.json", style="dim")
        for preference, rhos in sweep.rho.items():
            said = ", ".join(f"{figure} {rho:+.2f}" for figure, rho in rhos.items())
            if said:
                console.print(f"Spearman ρ of eta {preference}: {said}")
    for step in sweep.steps:
        console.print("  " + step_text(step), highlight=False)
    if sweep.front:
        names = "; ".join(point_name(sweep, index) for index in sweep.front)
        console.print(f"Pareto front over {', '.join(sweep.goals)}: {names}", highlight=False)
    print_answers(sweep, console)


def step_text(step: Step) -> str:
    """Return one step in words."""
    change = step.change
    sure = "" if change.low > 0 or change.high < 0 else " (the interval holds 0)"
    return f"{step.preference} {step.before:g} → {step.after:g}: {step.figure} {signed(change.value, '+.3g')} [{signed(change.low, '+.3g')}, {signed(change.high, '+.3g')}]{sure}"


def _heading(name: str) -> str:
    """Return a figure's name on two short lines; the list below the table has the whole one."""
    first, _, rest = name.partition(".")
    lines = [first, rest.replace("_", " ")] if rest else [first]
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def _lines(estimate: Estimate | None) -> str:
    """Return a figure, with its interval on a second line."""
    return "" if estimate is None else str(estimate).replace(" [", "\n\\[", 1)


def _figures(figures: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}
