"""What a sweep says: terminal tables, ``summary.json``, and ``report.html`` in one file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.evaluation.statistics import Estimate
from pv_merge.evaluation.sweep.pictures import point_name
from pv_merge.evaluation.sweep.results import Step, Sweep

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --rule: #d8dde3; --soft: #6b7785; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --rule: #3e4c59; --soft: #9aa5b1; --page: #14181d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
small, .soft { color: var(--soft); } img { max-width: 100%; background: #fff; border-radius: 6px; margin: .4rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
"""


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
            heading = name.replace(".", "\n.").replace("_", "\n_")
            table.add_column(heading, justify="right", no_wrap=True)
        for point, figures in zip(sweep.points, sweep.figures, strict=True):
            etas = [f"{point[name]:g}" for name in sweep.axes]
            table.add_row(*etas, *(_lines(figures.get(name)) for name in shown))
        console.print(table)
        for name in shown:
            console.print(f"  {name}: {sweep.labels[name]}", style="dim", highlight=False)
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


def print_answers(sweep: Sweep, console: Any) -> None:
    """Print the answers to each prompt, one eta after the other."""
    for place, prompt in enumerate(sweep.prompts):
        console.print(f"\n[bold]{_plain(prompt)}[/bold]", highlight=False)
        for item in sweep.answers:
            name = ", ".join(f"{p} {item['point'][p]:+g}" for p in sweep.axes)
            console.print(
                f"  [cyan]{name}[/cyan]  {_plain(item['answers'][place])}", highlight=False
            )


def step_text(step: Step) -> str:
    """Return one step in words."""
    change = step.change
    sure = "" if change.low > 0 or change.high < 0 else " (the interval holds 0)"
    return f"{step.preference} {step.before:g} → {step.after:g}: {step.figure} {change.value:+.3g} [{change.low:+.3g}, {change.high:+.3g}]{sure}"


def page(sweep: Sweep, pictures: Sequence[Path], provenance: dict[str, Any]) -> str:
    """Return the report as one HTML file, pictures and all."""
    names = ", ".join(sweep.axes)
    body = [
        f"<h1>eta of {_text(names)}, measured</h1>",
        f"<p class=soft>{_text(str(provenance.get('recipe', '')))}: {len(sweep.points)} points; "
        "intervals are 95 % bootstrap intervals over prompts.</p>",
    ]
    for path in pictures:
        data = base64.b64encode(path.read_bytes()).decode()
        body.append(f'<img alt="{_text(path.stem)}" src="data:image/png;base64,{data}">')
    if sweep.labels:
        body += ["<h2>Every point</h2>", _points_table(sweep), _label_list(sweep)]
        rows = [
            [_text(p), _text(f), f"{r:+.2f}"]
            for p, rhos in sweep.rho.items()
            for f, r in rhos.items()
        ]
        if rows:
            body += ["<h2>Monotone? Spearman's ρ of eta against each measure</h2>"]
            body += [_table(["preference", "measure", "ρ"], rows)]
    if sweep.steps:
        rows = [
            [_text(s.preference), f"{s.before:g} → {s.after:g}", _text(s.figure), _cell(s.change)]
            for s in sweep.steps
        ]
        body += ["<h2>What each step changed, item by item</h2>"]
        body += [_table(["preference", "eta", "measure", "mean change"], rows)]
    if sweep.front:
        items = "".join(f"<li>{_text(point_name(sweep, index))}</li>" for index in sweep.front)
        body += [f"<h2>Pareto front over {_text(', '.join(sweep.goals))}</h2>", f"<ul>{items}</ul>"]
    if sweep.answers:
        body += ["<h2>Answers (greedy)</h2>", _answers_table(sweep)]
    lines = [f"{key}: {value}" for key, value in provenance.items()]
    body += ["<h2>How it was made</h2>", f"<pre>{_text(chr(10).join(lines))}</pre>"]
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>eta of {_text(names)}</title><style>{STYLE}</style></head>\n<body>\n{content}\n</body></html>\n"
    )


def _points_table(sweep: Sweep) -> str:
    rows = []
    for point, figures in zip(sweep.points, sweep.figures, strict=True):
        etas = [f"{point[name]:g}" for name in sweep.axes]
        rows.append([*etas, *(_cell(figures[f]) if f in figures else "" for f in sweep.labels)])
    rows.append(
        [
            "base",
            *[""] * (len(sweep.axes) - 1),
            *(_cell(sweep.base[f]) if f in sweep.base else "" for f in sweep.labels),
        ]
    )
    return _table([*(f"η {_text(name)}" for name in sweep.axes), *map(_text, sweep.labels)], rows)


def _label_list(sweep: Sweep) -> str:
    items = "".join(f"<li><b>{_text(k)}</b>: {_text(v)}</li>" for k, v in sweep.labels.items())
    return f"<ul class=soft>{items}</ul>"


def _answers_table(sweep: Sweep) -> str:
    rows = []
    for place, prompt in enumerate(sweep.prompts):
        for item in sweep.answers:
            name = ", ".join(f"{p} {item['point'][p]:+g}" for p in sweep.axes)
            rows.append([_text(prompt), _text(name), _text(item["answers"][place])])
    return _table(["prompt", "eta", "answer"], rows, "text")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    lines = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class=scroll><table class="{kind}"><tr>{head}</tr>{lines}</table></div>'


def _cell(estimate: Estimate) -> str:
    if estimate.low == estimate.high:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g}<br><small>[{estimate.low:.3g}, {estimate.high:.3g}]</small>"


def _lines(estimate: Estimate | None) -> str:
    """Return a figure, with its interval on a second line."""
    return "" if estimate is None else str(estimate).replace(" [", "\n\\[", 1)


def _figures(figures: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _plain(text: str) -> str:
    """Return text that rich prints as it is, on one line."""
    from rich.markup import escape

    return escape(" ".join(text.split()))
