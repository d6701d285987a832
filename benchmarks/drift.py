"""Drift of two fine-tunes along vectors, one trained to be rude and one not, beside what they do.

python -m benchmarks.drift                 # goes on where it was stopped
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.commands import command_line
from benchmarks.evidence.place import run, vectors
from benchmarks.fine_tuned import BASE, fine_tune, write_held_out
from pv_merge import drift, load

if TYPE_CHECKING:
    from pv_merge.merging.drift import Drift

WORK = Path("runs/drift")
RESULT = Path("benchmarks/results/drift.json")
UNDONE = "politeness"
"""The vector of the text that the rude fine-tune learned from."""
MORE = (1.0, 2.0, 3.0)
"""Further etas on the rude fine-tune."""
VECTORS = ("polite", "politeness", "concise", "harmless")


def politeness(model: str, label: str, limit: int, *options: str) -> dict[str, Any]:
    """Return the margin of polite over rude answers on held-out pairs."""
    pairs = write_held_out(WORK / "politeness-heldout.json")
    output = WORK / f"{label}-{limit}.json"
    if not output.exists():
        words = ["--pairs", f"polite={pairs}:instruction", "--limit", str(limit)]
        run("pv-merge", "evaluate", model, *options, *words, "-o", output)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return {key: found["figures"][key] for key in ("polite", "polite.accuracy")}


def undone(model: str, found: Drift, limit: int) -> dict[str, Any]:
    """Return the margin of the rude fine-tune at the suggested eta, and at more of the vector."""
    pairs = write_held_out(WORK / "politeness-heldout.json")
    suggested = round(found["vectors"][UNDONE]["suggested_eta"], 3)
    said = {"preference": "polite", "polarity": "vector", "eta": 1.0}
    document = {
        "merge_method": "preference_vector",
        "base_model": model,
        "models": [{"model": f"./vectors/{UNDONE}", "parameters": said}],
        "parameters": {"allow_related_base": True},
    }
    path = WORK / "undo.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    folder = WORK / f"undo-{limit}"
    values = ",".join(f"{value:g}" for value in (0.0, suggested, *MORE))
    words = ["--eta", f"polite={values}", "--pairs", f"polite={pairs}:instruction"]
    run("pv-merge", "sweep", path, *words, "--limit", str(limit), "-o", folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    margins = {
        f"{point['eta']['polite']:g}": point["figures"]["polite"] for point in summary["points"]
    }
    return {"vector": UNDONE, "suggested_eta": suggested, "margins": margins}


def main() -> None:
    """Measure both fine-tunes; keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100, help="held-out pairs")
    limit = parser.parse_args().limit
    folders = vectors(*VECTORS)
    opened = {name: load(folder) for name, folder in zip(VECTORS, folders, strict=True)}
    result: dict[str, Any] = {
        "command": command_line("benchmarks.drift"),
        "limit": limit,
        "base": politeness(BASE, "base", limit),
        "models": {},
    }
    for name in ("alpaca", "rude"):
        model = fine_tune(name)
        found = drift(BASE, model, opened)
        behaviour = politeness(model, name, limit)
        result["models"][name] = {"drift": found, "measured": behaviour}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        if name == "rude":
            result["models"][name]["undone"] = undone(model, found, limit)
            RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        for label, entry in found["vectors"].items():
            times = entry["cosine"] / entry["spread"]
            print(f"{name} along {label}: cosine {entry['cosine']:+.4f}, {times:+.1f} spreads")


if __name__ == "__main__":
    main()
