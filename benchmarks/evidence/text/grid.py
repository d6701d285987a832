"""The grid of two preferences by what is written: two reward models, refusals, loops (Figure 2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pv_merge
from benchmarks.evidence.text.baselines import BOTH
from benchmarks.evidence.text.setup import TWO, TextEvidence

FREE = 0.05
"""Share of loops above the base's up to which a point counts as free of them."""
PICTURES = (*TWO, "written_loops", "xstest_safe", "xstest_unsafe")


def grid(evidence: TextEvidence, values: Sequence[float]) -> dict[str, Any]:
    """Sweep both preferences; return the figures, ρ, and how much of the grid is free of loops."""
    folder = evidence.work / "grid"
    pv_merge.sweep(
        evidence.recipe("vectors", BOTH),
        {name: list(values) for name in TWO},
        folder,
        evidence.measures(capability=False),
        yes=True,
    )
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept = {key: found[key] for key in ("axes", "labels", "base", "points", "spearman", "pareto", "versions")}  # fmt: skip
    return {**kept, "free_of_loops": free_of_loops(found), "pictures": pictures(folder)}


def free_of_loops(summary: dict[str, Any]) -> float:
    """Return the share of points with at most 5 % more loops than the base."""
    limit = summary["base"]["written_loops"]["value"] + FREE
    loops = [point["figures"]["written_loops"]["value"] for point in summary["points"]]
    return sum(value <= limit + 1e-9 for value in loops) / len(loops)


def pictures(folder: Path) -> dict[str, str]:
    """Return the heat maps that a sweep drew, by figure."""
    found = {name: folder / f"heatmap-{name}.png" for name in PICTURES}
    return {name: str(path) for name, path in found.items() if path.exists()}
