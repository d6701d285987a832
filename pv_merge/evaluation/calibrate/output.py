"""What a calibration leaves behind: the recipe with the suggested eta, and the trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json, write_text
from pv_merge.evaluation.calibrate.search import Calibration
from pv_merge.recipe.recipe import text_with_etas


def write(
    result: Calibration, recipe_text: str, folder: Path, provenance: Mapping[str, Any], why: str
) -> Path:
    """Write ``calibration.json`` and, where a point is allowed, ``recipe.yml``; return the last."""
    trace = [
        {
            "eta": trial.eta,
            "figures": {name: figure.to_dict() for name, figure in trial.figures.items()},
            "allowed": trial.allowed,
            "expected": trial.expected,
            "expected_gain": trial.gain,
        }
        for trial in result.trials
    ]
    best = result.best
    write_json(
        folder / "calibration.json",
        {
            **provenance,
            "goal": result.goal,
            "suggested": None if best is None else best.eta,
            "confidence": result.confidence,
            "expected_gain_left": result.gain_left,
            "finished": result.finished,
            "grid": result.grid,
            "evaluations": len(result.trials),
            "trace": trace,
        },
    )
    path = folder / "recipe.yml"
    if best is not None:
        header = [f"# mergekit-yaml {path} ./merged/calibrated", f"# {why}"]
        write_text(path, text_with_etas(recipe_text, best.eta, header))
    return path
