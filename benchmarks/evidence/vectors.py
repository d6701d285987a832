"""Stages that look at vectors themselves: cosines and interference (Tables 5, 15, 16), seeds (8, 17, Figure 6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence.inputs import held_out
from benchmarks.evidence.place import POLICIES, Place, output_of, run, vectors

SETS = {
    "two": ("helpful", "harmless"),
    "three": ("helpful", "harmless", "politeness"),
    "four": ("helpful", "harmless", "politeness", "concise"),
}
ALL = ("polite", "concise", "politeness", "harmless", "helpful")
STEPS = 40
"""Those of benchmarks/policies/politeness.yml."""
SEEDS = {
    "order": ("dpo.data_seed", "the order of the pairs alone"),
    "first-weights": ("dpo.seed", "the order of the pairs and LoRA's random first weights"),
}
"""What a seed may set. Full fine-tuning, as in the paper, has no random first weights, so ``order`` is its counterpart."""


POLARITIES = ("positive", "negative")
RECIPE = """merge_method: preference_vector
base_model: ./models/smollm2-135m-instruct
models:
  - model: {vector}
    parameters: {{preference: polite, polarity: vector, eta: 1.0}}
parameters: {{round_to: bfloat16}}
out_dtype: bfloat16
"""


def cosines(place: Place, limit: int) -> dict[str, Any]:
    """Inspect every real vector, and the interference of two, three and four of them."""
    words = ["inspect", *vectors(*ALL), "--plot", str(place.images / "vectors.png"), "--json"]
    place.images.mkdir(parents=True, exist_ok=True)
    everything = json.loads(output_of("pv-merge", *words))
    (place.output / "vectors.json").write_text(json.dumps(everything, indent=2) + "\n")
    sets = {}
    for name, members in SETS.items():
        found = json.loads(output_of("pv-merge", "inspect", *vectors(*members), "--json"))
        sets[name] = {
            "vectors": list(members),
            "cosines": found["cosines"]["matrix"],
            "sign_disagreement": found["sign_disagreement"],
            **{key: found["interference"][key] for key in ("rank", "matrices", "mean")},
        }
    pairs = {
        Path(label).name: entry["cosine_positive_negative"]
        for label, entry in everything["vectors"].items()
    }
    return {"positive_negative": pairs, "sets": sets}


def seeds(place: Place, limit: int) -> dict[str, Any]:
    """Train what is missing of three seeds of one preference, twice, and compare their vectors.

    The committed policies are one of the three (TRL's seed, 42). ``dpo.seed`` also sets LoRA's
    first weights, since TRL seeds before it makes the adapter. ``limit`` is the number of steps.
    """
    kinds = {}
    for kind, (option, what) in SEEDS.items():
        names, commands = ["politeness"], []
        for seed in (1, 2):
            name = f"politeness-{kind}-{seed}" + ("" if limit == STEPS else f"-{limit}")
            words = _training(name, f"{option}={seed}", limit)
            commands.append(" ".join(["pv-train", *words]))
            finished = [Path("runs") / name / side / "pv_run.json" for side in POLARITIES]
            if not all(path.exists() for path in finished):
                run("pv-train", *words, "--resume")
            names.append(name)
        folders = vectors(*names)
        found = json.loads(output_of("pv-merge", "inspect", *folders, "--json"))
        kinds[kind] = {
            "what": what,
            "commands": commands,
            "norms": [entry["norm"] for entry in found["vectors"].values()],
            "cosines": found["cosines"]["matrix"],
            "eigenvalues": found["eigenvalues"],
            "effects": [_effect(place, folder, limit) for folder in folders],
        }
    return {"preference": "polite", "kinds": kinds}


def _training(name: str, seed: str, steps: int) -> list[str]:
    words = ["dpo", str(POLICIES / "politeness.yml"), "-o", seed, "-o", f"output_dir=./runs/{name}"]
    return words if steps == STEPS else [*words, "-o", f"dpo.max_steps={steps}"]


def _effect(place: Place, vector: str, limit: int) -> dict[str, float]:
    """Return the reward margin that a vector gives at eta 1 on the held-out pairs."""
    folder = place.folder("seeds", limit)
    recipe = folder / f"{Path(vector).name}.yml"
    recipe.write_text(RECIPE.format(vector=vector), encoding="utf-8")
    result = recipe.with_suffix(".json")
    run("pv-merge", "evaluate", recipe, *held_out(place, "polite"), "-o", result)
    figures = json.loads(result.read_text(encoding="utf-8"))["figures"]
    effect: dict[str, float] = figures["polite.reward_margin"]
    return effect
