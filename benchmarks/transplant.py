"""Vectors of one base on another fine-tune of it: the share of the effect that arrives.

    python -m benchmarks.transplant            # goes on where it was stopped

The same sweep on both bases; the effect is the change of the held-out margin from the lowest to the
highest eta, and the share that of the other fine-tune over that of the vectors' own base. Its
interval is a bootstrap over pairs, which are the same on both.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.commands import command_line
from benchmarks.evidence.place import run, vectors
from benchmarks.fine_tuned import BASE, DATA, fine_tune
from pv_merge.recipe.opening import check

WORK = Path("runs/transplant")
RESULT = Path("benchmarks/results/transplant.json")
VALUES = (-1.0, 0.0, 1.0)
PAIRS = {
    "polite": Path("recipes/quickstart/data/polite-heldout.jsonl"),
    "concise": Path("recipes/quickstart/data/concise-heldout.jsonl"),
    "harmless": DATA / "pku-saferlhf/harmless-test.jsonl",
}
RESAMPLES = 5000


def recipe(name: str, label: str, base: str) -> Path:
    """Write the recipe of one vector over a base, and return its path."""
    document = {
        "merge_method": "preference_vector",
        "base_model": base,
        "models": [
            {
                "model": f"./vectors/{name}",
                "parameters": {"preference": name, "polarity": "vector", "eta": 1.0},
            }
        ],
        "parameters": {"allow_related_base": True, "allow_protected_negative": True},
    }
    path = WORK / f"{name}-{label}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def margins(name: str, label: str, base: str, limit: int) -> dict[float, np.ndarray]:
    """Sweep one vector over a base; return every pair's margin by eta."""
    folder = WORK / f"{name}-{label}-{limit}"
    values = ",".join(f"{value:g}" for value in VALUES)
    words = ["--eta", f"{name}={values}", "--pairs", f"{name}={PAIRS[name]}"]
    path = recipe(name, label, base)
    run("pv-merge", "sweep", path, *words, "--limit", str(limit), "-o", folder)
    found = {}
    for text in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["kind"] == "record":
            record = line["record"]
            chosen, rejected = np.array(record["chosen"]), np.array(record["rejected"])
            found[float(line["point"][name])] = chosen - rejected
    return found


def share(own: dict[float, np.ndarray], other: dict[float, np.ndarray]) -> dict[str, Any]:
    """Return both effects and their ratio, with intervals."""
    first, second = own[VALUES[-1]] - own[VALUES[0]], other[VALUES[-1]] - other[VALUES[0]]
    draw = np.random.default_rng(0).integers(0, len(first), (RESAMPLES, len(first)))
    ratios = second[draw].mean(1) / first[draw].mean(1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return {
        "pairs": len(first),
        "margins_own": {f"{eta:g}": float(values.mean()) for eta, values in sorted(own.items())},
        "margins_other": {
            f"{eta:g}": float(values.mean()) for eta, values in sorted(other.items())
        },
        "effect_own": float(first.mean()),
        "effect_other": float(second.mean()),
        "share": {
            "value": float(second.mean() / first.mean()),
            "low": float(low),
            "high": float(high),
        },
    }


def main() -> None:
    """Measure every vector on both bases, and keep the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=48, help="pairs of each preference")
    limit = parser.parse_args().limit
    mine = fine_tune("alpaca")
    vectors(*PAIRS)
    result: dict[str, Any] = {
        "command": command_line("benchmarks.transplant"),
        "base": BASE,
        "other": mine,
        "limit": limit,
        "preferences": {},
    }
    for name in PAIRS:
        notes = [item.text for item in check(recipe(name, "other", mine)) if "put on" in item.text]
        own = margins(name, "own", BASE, limit)
        other = margins(name, "other", mine, limit)
        relation = notes[0].partition("The two are related: ")[2] if notes else ""
        result["preferences"][name] = {**share(own, other), "relation": relation}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {result['preferences'][name]['share']}", flush=True)


if __name__ == "__main__":
    main()
