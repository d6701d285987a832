"""A sweep's ``report.html``: one file, pictures and all, from a Jinja template."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pv_merge.evaluation.statistics import FEW, Estimate, rounded, signed
from pv_merge.evaluation.sweep.pictures import point_name
from pv_merge.evaluation.sweep.results import Sweep

if TYPE_CHECKING:
    from jinja2 import Environment


def page(sweep: Sweep, pictures: Sequence[Path], provenance: Mapping[str, Any]) -> str:
    """Return the report as one HTML file; every text in it is escaped by Jinja's autoescape."""
    rho = [
        [preference, figure, signed(value)]
        for preference, found in sweep.rho.items()
        for figure, value in found.items()
    ]
    steps = [
        [step.preference, f"{step.before:g} → {step.after:g}", step.figure, cell(step.change)]
        for step in sweep.steps
    ]
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            sweep=sweep,
            names=", ".join(sweep.axes),
            provenance=dict(provenance),
            pictures=[_picture(path) for path in pictures],
            point_heads=[*(f"η {name}" for name in sweep.axes), *sweep.labels],
            point_rows=_point_rows(sweep),
            rho_rows=rho,
            step_rows=steps,
            front=[point_name(sweep, index) for index in sweep.front],
        )
    )


@cache
def environment() -> Environment:
    """Return the environment of the report's template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("pv_merge.evaluation.sweep"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["at"] = lambda point: ", ".join(
        f"{name} {signed(eta, '+g') if eta is not None else 'by layer'}"
        for name, eta in point.items()
    )
    return found


def cell(estimate: Estimate) -> Markup:
    """Return a figure with its interval below, and n where it is small."""
    parts = []
    if estimate.low != estimate.high:
        parts.append(f"[{rounded(estimate.low)}, {rounded(estimate.high)}]")
    if estimate.n < FEW:
        parts.append(f"n = {estimate.n}")
    below = Markup("").join(Markup("<small>{}</small>").format(part) for part in parts)
    return Markup("{}{}").format(rounded(estimate.value), below)


def _point_rows(sweep: Sweep) -> list[list[str]]:
    def figures(found: Mapping[str, Estimate]) -> list[str]:
        return [cell(found[name]) if name in found else "" for name in sweep.labels]

    rows = [
        [*(f"{point[name]:g}" for name in sweep.axes), *figures(found)]
        for point, found in zip(sweep.points, sweep.figures, strict=True)
    ]
    return [*rows, ["base", *[""] * (len(sweep.axes) - 1), *figures(sweep.base)]]


def _picture(path: Path) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"title": path.stem.replace("-", ": ", 1), "source": f"data:image/png;base64,{data}"}
