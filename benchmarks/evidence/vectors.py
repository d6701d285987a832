"""Stages that look at vectors themselves: cosines and interference (Tables 5, 15, 16), seeds (8, 17, Figure 6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence.place import POLICIES, Place, output_of, run, vectors

SETS = {
    "two": ("helpful", "harmless"),
    "three": ("helpful", "harmless", "politeness"),
    "four": ("helpful", "harmless", "politeness", "concise"),
}
ALL = ("polite", "concise", "politeness", "harmless", "helpful")
COMMITTED_SEED = 42
"""That of the committed politeness policies, TRL's default."""
SEEDS = (1, 2)


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
    """Train what is missing of three seeds of one preference, and compare their vectors.

    ``dpo.seed`` sets LoRA's first weights (TRL seeds before it makes the adapter) and the order
    of the pairs. ``limit`` is the number of steps.
    """
    config = POLICIES / "politeness.yml"
    names = ["politeness"]
    commands = []
    for seed in SEEDS:
        name = f"politeness-seed{seed}" + ("" if limit == 40 else f"-{limit}")
        words = ["dpo", str(config), "-o", f"dpo.seed={seed}", "-o", f"output_dir=./runs/{name}"]
        if limit != 40:
            words += ["-o", f"dpo.max_steps={limit}"]
        commands.append(" ".join(["pv-train", *words]))
        if not all((Path("runs") / name / side / "pv_run.json").exists() for side in ("positive", "negative")):  # fmt: skip
            run("pv-train", *words, "--resume")
        names.append(name)
    found = json.loads(output_of("pv-merge", "inspect", *vectors(*names), "--json"))
    return {
        "preference": "polite",
        "seeds": [COMMITTED_SEED, *SEEDS],
        "commands": commands,
        "norms": [entry["norm"] for entry in found["vectors"].values()],
        "cosines": found["cosines"]["matrix"],
        "eigenvalues": found["eigenvalues"],
    }
