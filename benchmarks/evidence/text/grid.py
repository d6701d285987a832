"""The grid of two preferences by what is written: two reward models, refusals, loops (Figure 2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pv_merge
from benchmarks.evidence.text.baselines import BOTH
from benchmarks.evidence.text.setup import TWO, TextEvidence

FREE = 0.05
"""Share of loops above the base's up to which a point counts as free of them."""
PICTURES = (*TWO, "written_loops", "xstest_safe", "xstest_unsafe")


def grid(
    evidence: TextEvidence, values: Sequence[float], images: Path, prefix: str
) -> dict[str, Any]:
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
    return {
        **kept,
        "free_of_loops": free_of_loops(found),
        "pictures": keep_pictures(folder, images, prefix),
    }


def free_of_loops(summary: dict[str, Any]) -> float:
    """Return the share of points with at most 5 % more loops than the base."""
    limit = summary["base"]["written_loops"]["value"] + FREE
    loops = [point["figures"]["written_loops"]["value"] for point in summary["points"]]
    return sum(value <= limit + 1e-9 for value in loops) / len(loops)


def keep_pictures(folder: Path, images: Path, prefix: str) -> dict[str, str]:
    """Copy the heat maps that a sweep drew; return their new names by figure."""
    images.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in PICTURES:
        path = folder / f"heatmap-{name}.png"
        if path.exists():
            found[name] = f"{prefix}-{name.replace('_', '-')}.png"
            shutil.copyfile(path, images / found[name])
    return found
