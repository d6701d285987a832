"""What a calibration leaves behind: the recipe with the suggested eta, and the trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import parse_yaml
from pv_merge.evaluation.calibrate.search import Calibration


def recipe_with(text: str, etas: Mapping[str, float], path: Path, why: str) -> str:
    """Return a recipe's YAML with other etas; its comments are not kept."""
    data = parse_yaml(text, path)
    for item in data["models"]:
        said = item.get("parameters") or {}
        if said.get("preference") in etas:
            said["eta"] = float(etas[said["preference"]])
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return f"# mergekit-yaml {path} ./merged/calibrated\n# {why}\n{body}"


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
        path.write_text(recipe_with(recipe_text, best.eta, path, why), encoding="utf-8")
    return path
