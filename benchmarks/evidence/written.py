"""Stages by what is written, on the committed policies: the grid, and the baselines (hours on two cores)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence import gpu, gpu_files
from benchmarks.evidence.inputs import held_out, mixed, sample
from benchmarks.evidence.place import BASE, POLICIES, Place
from benchmarks.evidence.text.grid import grid as measure_grid
from benchmarks.evidence.text.setup import TWO, TextEvidence

REWARDS = Path("runs/reward")
REFUSALS = 120
SCALE = gpu_files.Scale(weights=(0.0, 0.5, 1.0), strengths=(1.0, 2.0))


def grid(place: Place, limit: int) -> dict[str, Any]:
    """Sweep helpful and harmless, 5 × 5, by both reward models, 60 + 60 XSTest prompts and loops."""
    found = measure_grid(evidence(place, limit), SCALE.values, place.images, "text")
    return {"device": gpu.device(), "grid": found}


def baselines(place: Place, limit: int) -> dict[str, Any]:
    """Measure every baseline at a few settings."""
    return {"device": gpu.device(), "baselines": gpu.baselines(evidence(place, limit), SCALE)}


def evidence(place: Place, limit: int) -> TextEvidence:
    """Return the committed policies with prompts of the test splits; a reward model is trained first."""
    for name in TWO:
        if not (REWARDS / name / "pv_run.json").is_file():
            raise SystemExit(f"{REWARDS / name}: is missing; pv-train reward benchmarks/reward_models/{name}.yml makes it")  # fmt: skip
    folder = place.folder("written", limit)
    options = held_out(place, *TWO)[1::2]
    files = {name: Path(option.partition("=")[2]) for name, option in zip(TWO, options, strict=True)}  # fmt: skip
    rows = mixed([_prompts(path) for path in files.values()])[:limit]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in rows), encoding="utf-8")  # fmt: skip
    facts = place.data / "capability/commonsenseqa-dev-300.jsonl"
    there = [name for name in (*TWO, "safe-first") if (POLICIES / name / "positive").is_dir()]
    return TextEvidence(
        base=BASE,
        policies={name: POLICIES / name for name in there},
        rewards={name: REWARDS / name for name in TWO},
        pairs={name: Path(str(path).replace("-test", "-train")) for name, path in files.items()},
        prompts=prompts,
        refusals=sample(place.data / "refusal/xstest_prompts.csv", folder / "xstest.csv", REFUSALS),
        neutral=gpu.NEUTRAL,
        knowledge=facts,
        work=folder,
    )


def _prompts(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = (json.loads(line)["prompt"] for line in lines)
    return list(dict.fromkeys(text if isinstance(text, str) else text[-1]["content"] for text in asked))  # fmt: skip
