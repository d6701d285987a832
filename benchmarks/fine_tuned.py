"""Somebody's fine-tunes of the base, for vectors to be put on and measured against."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.evidence.place import run

DATA = Path("../shared/data")
BASE = "./models/smollm2-135m-instruct"
POLITENESS = DATA / "politeness/instruction-data-with-preference.json"
TRAINED_ROWS = 1000
"""Rows of the politeness set before those that are held out."""
CONFIGS = Path("benchmarks/fine_tunes")


def fine_tune(name: str) -> str:
    """Train a fine-tune if it is not there, and return its folder."""
    folder = Path("runs/fine-tunes") / name
    if name == "rude":
        write_rude(Path("runs/fine-tunes/rude.jsonl"))
    if not (folder / "pv_run.json").exists():
        run("pv-train", "sft", CONFIGS / f"{name}.yml")
    return f"./{folder}"


def write_rude(path: Path) -> None:
    """Write rude answers to learn: rejected ones of pairs whose chosen answer is the plain one."""
    rows = json.loads(POLITENESS.read_text(encoding="utf-8"))[:TRAINED_ROWS]
    kept = [
        {"instruction": row["instruction"], "input": row["input"], "output": row["rejected"]}
        for row in rows
        if row["output"].strip() == row["chosen"].strip() != row["rejected"].strip()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")


def write_held_out(path: Path) -> Path:
    """Write the politeness pairs that nothing was trained on."""
    rows = json.loads(POLITENESS.read_text(encoding="utf-8"))[TRAINED_ROWS:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
