"""The picture of the knowledge stage, the paper's Figure 5 with perplexity beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHANCE = 0.2
"""CommonsenseQA has five choices."""
WIDE = 5.0
"""Ratio of perplexities from which the axis is logarithmic."""


def knowledge_plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw perplexity as a multiple of the base's, and accuracy, against eta, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.6), dpi=150)
    etas = [point["eta"] for point in points]
    # The change from the base is paired, window by window, so its interval is the narrow one.
    ratios = [
        {key: math.exp(point["change_from_base"]["perplexity.nats"][key]) for key in ("value", "low", "high")}
        for point in points
    ]  # fmt: skip
    _curve(left, etas, ratios, "perplexity, of the base's (less is better)", 1.0, "base model")
    accuracy = [point["figures"]["commonsenseqa"] for point in points]
    _curve(right, etas, accuracy, "CommonsenseQA accuracy (more is better)", CHANCE, "chance")
    if max(ratio["value"] for ratio in ratios) > WIDE:
        left.set_yscale("log")
    right.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _curve(
    axis: Any,
    etas: Sequence[float],
    found: Sequence[dict[str, float]],
    label: str,
    line: float,
    said: str,
) -> None:
    middle = [entry["value"] for entry in found]
    reach = [
        [max(entry["value"] - entry["low"], 0) for entry in found],
        [max(entry["high"] - entry["value"], 0) for entry in found],
    ]
    axis.errorbar(etas, middle, yerr=reach, color="#2f6db3", marker="o", markersize=5, capsize=3)
    axis.axhline(line, color="#888888", linewidth=1, linestyle="--", label=said)
    axis.set_xticks(etas, [f"{eta:g}" for eta in etas])
    axis.set_xlabel("η of helpful and of harmless")
    axis.set_ylabel(label, fontsize=9)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
