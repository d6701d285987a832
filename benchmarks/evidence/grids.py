"""Stages over the 5 × 5 grid of helpful and harmless: the grid (Figure 2), calibrate against it, its time."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.commands import run_once
from benchmarks.evidence.inputs import held_out, text
from benchmarks.evidence.place import RECIPES, Place, measured_seconds, run, vectors
from pv_merge.evaluation.calibrate.goal import Constraint, read_constraint
from pv_merge.evaluation.statistics import Estimate

RECIPE = RECIPES / "helpful-harmless.yml"
PREFERENCES = ("helpful", "harmless")
VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)
STEP = 0.5
POINTS = len(VALUES) ** 2
GOAL = "helpful"
CONSTRAINTS = ("harmless>=base", "perplexity<=1.02*base")
EVALUATIONS = POINTS // 3
MERGES = 2


def _measures(place: Place, limit: int) -> list[str]:
    capability = f"perplexity={text(place)}"
    return [*held_out(place, *PREFERENCES), "--capability", capability, "--limit", str(limit)]


def _axes() -> list[str]:
    values = ",".join(f"{value:g}" for value in VALUES)
    return [word for name in PREFERENCES for word in ("--eta", f"{name}={values}")]


def grid(place: Place, limit: int) -> dict[str, Any]:
    """Sweep the grid; keep heat maps, ρ, Pareto front and the time."""
    vectors(*PREFERENCES)
    folder = place.folder("grid", limit)
    journal = folder / "results.jsonl"
    resumed = journal.exists()
    seconds = run("pv-merge", "sweep", RECIPE, *_axes(), *_measures(place, limit), "-o", folder)
    for name in (*PREFERENCES, "perplexity"):
        place.keep_image(folder / f"heatmap-{name}.png", f"heatmap-{name}.png")
    place.keep_image(folder / "pareto.png", "pareto-helpful-harmless.png")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in summary.items() if key not in ("prompts", "answers")}
    # Of a sweep that went on after a stop, only the time of the measurements is known.
    return {**kept, "measuring_s": round(measured_seconds(journal), 1), "wall_s": None if resumed else round(seconds, 1)}  # fmt: skip


def calibrate(place: Place, limit: int) -> dict[str, Any]:
    """Calibrate on the same grid, and set what it found beside the best allowed point of all."""
    whole = place.read("grid")
    journal = place.folder("grid", limit) / "results.jsonl"
    if whole is None or whole["limit"] != limit or not journal.exists():
        raise SystemExit(
            f"the grid is not measured with --limit {limit} yet; run the stage grid first"
        )
    folder = place.folder("calibrate", limit)
    # What the search asks for is known: it reads the same measurements, no other ones.
    shutil.copyfile(journal, folder / "results.jsonl")
    ranges = [word for name in PREFERENCES for word in ("--range", f"{name}={VALUES[0]:g}:{VALUES[-1]:g}:{STEP:g}")]  # fmt: skip
    bounds = [word for text_ in CONSTRAINTS for word in ("--subject-to", text_)]
    run("pv-merge", "calibrate", RECIPE, "--maximize", GOAL, *bounds, *ranges, "--evaluations", str(EVALUATIONS), *_measures(place, limit), "-o", folder)  # fmt: skip
    found = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    constraints = [read_constraint(text_) for text_ in CONSTRAINTS]
    suggested = found["suggested"]
    return {
        **{key: found[key] for key in ("command", "versions", "constraints", "goal", "suggested", "confidence", "expected_gain_left", "finished", "evaluations")},
        "points": POINTS,
        "step": STEP,
        "best": best_allowed(whole, GOAL, constraints),
        "best_without_bounds": best_allowed(whole, GOAL, []),
        "suggested_value": value_at(whole, suggested, GOAL),
        "trace": [{"eta": t["eta"], "value": t["figures"][GOAL]["value"], "allowed": t["allowed"]} for t in found["trace"]],
    }  # fmt: skip


def best_allowed(
    whole: Mapping[str, Any], goal: str, constraints: Sequence[Constraint]
) -> dict[str, Any]:
    """Return the grid's best point within all bounds, its value, and how many are within them."""
    base = {name: Estimate(**figure) for name, figure in whole["base"].items()}
    allowed = [
        point
        for point in whole["points"]
        if all(c.slack(point["figures"][c.figure]["value"], base) >= 0 for c in constraints)
    ]
    best = max(allowed, key=lambda point: float(point["figures"][goal]["value"]))
    return {"eta": best["eta"], "value": best["figures"][goal]["value"], "allowed": len(allowed)}


def value_at(whole: Mapping[str, Any], eta: Mapping[str, float], figure: str) -> float:
    """Return a figure at one point of the grid."""
    point = next(p for p in whole["points"] if all(p["eta"][n] == v for n, v in eta.items()))
    return float(point["figures"][figure]["value"])


def timing(place: Place, limit: int) -> dict[str, Any]:
    """Time a sweep of the grid with hardly any measuring, and a few merges to disk with a load each."""
    vectors(*PREFERENCES)
    folder, merged = place.folder("timing", limit), place.work / "merged"
    shutil.rmtree(folder)
    sweep_s = run("pv-merge", "sweep", RECIPE, *_axes(), *held_out(place, *PREFERENCES), "--limit", str(limit), "-o", folder)  # fmt: skip
    measuring = measured_seconds(folder / "results.jsonl")
    load = (
        "import torch; from transformers import AutoModelForCausalLM as M;"
        f"M.from_pretrained({str(merged)!r}, dtype=torch.float32)"
    )
    merges, loads = [], []
    for _ in range(MERGES + 1):
        shutil.rmtree(merged, ignore_errors=True)
        start = time.perf_counter()
        run("mergekit-yaml", RECIPE, merged, "--quiet")
        merges.append(round(time.perf_counter() - start, 2))
        loads.append(round(run_once([sys.executable, "-c", load])[0], 2))
    shutil.rmtree(merged, ignore_errors=True)
    merges, loads = merges[1:], loads[1:]  # the first round reads files that are not cached yet
    one = sum(merges) / MERGES + sum(loads) / MERGES
    without = sweep_s - measuring
    return {
        "points": POINTS,
        "sweep_wall_s": round(sweep_s, 1),
        "sweep_measuring_s": round(measuring, 1),
        "sweep_without_measuring_s": round(without, 1),
        "merge_s": merges,
        "load_s": loads,
        "merges_and_loads_s": round(POINTS * one, 1),
        "ratio": round(without / (POINTS * one), 4),
    }
