"""Charts of figures over eta: heat map (the paper's Figure 2), control curve, Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pv_merge.artifacts.folders import replacing
from pv_merge.evaluation.statistics import Estimate

INK = "#1f2933"
BLUE = "#2f6db3"


def heat_map(
    path: Path,
    x: tuple[str, Sequence[float]],
    y: tuple[str, Sequence[float]],
    values: np.ndarray,
    title: str,
    label: str,
    better: int = 1,
) -> None:
    """Write a PNG of ``values`` (rows y from low to high, columns x), each cell with its number."""
    figure, axes = _canvas(1.5 + 0.82 * len(x[1]), 1.7 + 0.62 * len(y[1]))
    image = axes.imshow(
        values, origin="lower", aspect="auto", cmap="viridis" if better >= 0 else "viridis_r"
    )
    axes.set_xticks(range(len(x[1])), [f"{v:g}" for v in x[1]])
    axes.set_yticks(range(len(y[1])), [f"{v:g}" for v in y[1]])
    axes.set_xlabel(f"η {x[0]}")
    axes.set_ylabel(f"η {y[0]}")
    axes.set_title(title, fontsize=11, color=INK)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if np.isfinite(values[row, column]):
                colour = image.cmap(image.norm(values[row, column]))
                light = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 0.55
                axes.text(
                    column,
                    row,
                    f"{values[row, column]:.3g}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=INK if light else "white",
                )
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label(_wrapped(label, 34), fontsize=8, color=INK)
    bar.outline.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    _save(figure, path)


def control_curve(
    path: Path,
    preference: str,
    etas: Sequence[float],
    estimates: Sequence[Estimate],
    title: str,
    label: str,
    base: Estimate | None = None,
) -> None:
    """Write a PNG of one figure against eta, with 95 % intervals and the base as a line."""
    figure, axes = _canvas(5.6, 3.6)
    middle = np.array([e.value for e in estimates])
    low, high = np.array([e.low for e in estimates]), np.array([e.high for e in estimates])
    axes.fill_between(etas, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval")
    axes.errorbar(
        etas,
        middle,
        yerr=[middle - low, high - middle],
        color=BLUE,
        marker="o",
        markersize=5,
        capsize=3,
    )
    if base is not None:
        axes.axhline(base.value, color="#888888", linewidth=1, linestyle="--", label="base model")
    axes.set_xticks(list(etas), [f"{v:g}" for v in etas])
    axes.set_xlabel(f"η {preference}")
    axes.set_ylabel(_wrapped(label, 40), fontsize=9)
    axes.set_title(title, fontsize=11, color=INK)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def front_plot(
    path: Path,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    front: Sequence[int],
    labels: tuple[str, str],
    title: str = "",
) -> None:
    """Write a PNG of all points over two figures, those of the Pareto front joined and named."""
    figure, axes = _canvas(5.6, 4.2)
    data = np.array(points)
    axes.scatter(data[:, 0], data[:, 1], color="#b6bec9", s=22, label="other points")
    best = sorted(front, key=lambda i: points[i])
    axes.plot(
        data[best, 0], data[best, 1], color=BLUE, marker="o", markersize=5, label="Pareto front"
    )
    for index in best:
        axes.annotate(
            names[index],
            points[index],
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    axes.set_xlabel(_wrapped(labels[0], 60), fontsize=9)
    axes.set_ylabel(_wrapped(labels[1], 44), fontsize=9)
    axes.set_title(title, fontsize=10, color=INK)
    axes.margins(0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), dpi=150)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
