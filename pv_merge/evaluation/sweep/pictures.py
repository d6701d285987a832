"""The pictures of a sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pv_merge.evaluation.charts import control_curve, front_plot, heat_map
from pv_merge.evaluation.statistics import Estimate, pareto_front
from pv_merge.evaluation.sweep.results import Sweep


def draw(sweep: Sweep, folder: Path) -> list[Path]:
    """Write the pictures into ``folder`` and return them.

    A heat map for each headline figure where two preferences are swept, a control curve where one
    is (along each axis, the others nearest to 0, where more than two are), and the Pareto front
    where there are two figures of which more, or less, is better.
    """
    moving = [name for name, values in sweep.axes.items() if len(values) > 1]
    written = []
    for figure in sweep.headlines:
        file = figure.replace("/", "-")
        if len(moving) == 2:
            path = folder / f"heatmap-{file}.png"
            _heat_map(sweep, moving, figure, path)
            written.append(path)
        else:
            for name in moving:
                path = folder / (
                    f"curve-{file}.png" if len(moving) == 1 else f"curve-{file}-{name}.png"
                )
                _curve(sweep, name, figure, path)
                written.append(path)
    if len(sweep.goals) > 1 and len(sweep.points) > 2:
        path = folder / "pareto.png"
        _front(sweep, path)
        written.append(path)
    return written


def point_name(sweep: Sweep, index: int) -> str:
    """Return a short name such as ``helpful 0.5, harmless 1``."""
    point = sweep.points[index]
    return ", ".join(f"{name} {point[name]:g}" for name in sweep.axes)


def line(sweep: Sweep, preference: str) -> list[int]:
    """Return the points along one axis, the other axes nearest to 0."""
    home = {other: min(values, key=abs) for other, values in sweep.axes.items()}
    return [
        index
        for index, point in enumerate(sweep.points)
        if all(point[other] == value for other, value in home.items() if other != preference)
    ]


def _heat_map(sweep: Sweep, moving: list[str], figure: str, path: Path) -> None:
    x, y = moving
    values = np.full((len(sweep.axes[y]), len(sweep.axes[x])), np.nan)
    for point, figures in zip(sweep.points, sweep.figures, strict=True):
        if figure in figures:
            row, column = _place(sweep, y, point[y]), _place(sweep, x, point[x])
            values[row, column] = figures[figure].value
    label = sweep.labels[figure]
    heat_map(
        path,
        (x, sweep.axes[x]),
        (y, sweep.axes[y]),
        values,
        figure,
        label,
        sweep.better.get(figure, 1),
    )


def _curve(sweep: Sweep, name: str, figure: str, path: Path) -> None:
    indices = [index for index in line(sweep, name) if figure in sweep.figures[index]]
    estimates: list[Estimate] = [sweep.figures[index][figure] for index in indices]
    etas = [float(sweep.points[index][name] or 0) for index in indices]
    control_curve(path, name, etas, estimates, figure, sweep.labels[figure], sweep.base.get(figure))


def _front(sweep: Sweep, path: Path) -> None:
    """Draw the first two goals, with the front over these two alone."""
    goals = sweep.goals[:2]
    data = [(found[goals[0]].value, found[goals[1]].value) for found in sweep.figures]
    signs = [sweep.better[goal] for goal in goals]
    front = pareto_front([[s * v for s, v in zip(signs, row, strict=True)] for row in data])
    names = [", ".join(f"{point[name]:g}" for name in sweep.axes) for point in sweep.points]
    labels = (f"{goals[0]}: {sweep.labels[goals[0]]}", f"{goals[1]}: {sweep.labels[goals[1]]}")
    front_plot(path, data, names, front, labels, f"η of {', '.join(sweep.axes)} at each point")


def _place(sweep: Sweep, name: str, value: float | None) -> int:
    assert value is not None
    return sweep.axes[name].index(value)
