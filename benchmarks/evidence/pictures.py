"""The picture of the knowledge stage, the paper's Figure 5 with perplexity beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("perplexity", "perplexity (log scale), less is better"),
    ("commonsenseqa", "CommonsenseQA accuracy, more is better"),
)
CHANCE = 0.2
"""CommonsenseQA has five choices."""


def knowledge_plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw perplexity and accuracy against eta, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 3.6), dpi=150)
    etas = [point["eta"] for point in points]
    for axis, (name, label) in zip(axes, PANELS, strict=True):
        found = [point["figures"][name] for point in points]
        middle = [entry["value"] for entry in found]
        reach = [
            [entry["value"] - entry["low"] for entry in found],
            [entry["high"] - entry["value"] for entry in found],
        ]
        axis.errorbar(etas, middle, yerr=reach, color="#2f6db3", marker="o", markersize=5, capsize=3)  # fmt: skip
        line = middle[0] if name == "perplexity" else CHANCE
        said = "base model" if name == "perplexity" else "chance"
        axis.axhline(line, color="#888888", linewidth=1, linestyle="--", label=said)
        axis.set_xticks(etas, [f"{eta:g}" for eta in etas])
        axis.set_xlabel("η of helpful and of harmless")
        axis.set_ylabel(label, fontsize=9)
        axis.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
