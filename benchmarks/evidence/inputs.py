"""Files that the stages make of the shared data, under ``runs/``: none of them is committed."""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.place import Place
from benchmarks.rounding import write_text

HELPFUL = "hh-rlhf/helpful-{split}.jsonl"
HARMLESS = "pku-saferlhf/harmless-{split}.jsonl"
POLITENESS = "politeness/instruction-data-with-preference.json"
HELD_OUT_FROM = 1000
"""First row of the politeness set that the policies were not trained on."""
MAX_CHARS = 400
"""That of the training configs."""


def held_out(place: Place, *names: str) -> list[str]:
    """Return ``--pairs`` options for held-out pairs of the preferences."""
    options: list[str] = []
    for name in names:
        if name == "polite":
            path = Path("runs/politeness-heldout.json")
            rows = json.loads((place.data / POLITENESS).read_text(encoding="utf-8"))
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(rows[HELD_OUT_FROM:]), encoding="utf-8")
            options.append(f"{name}=./{path}:instruction")
        else:
            form = HELPFUL if name == "helpful" else HARMLESS
            options.append(f"{name}={place.data / form.format(split='test')}")
    return [word for option in options for word in ("--pairs", option)]


def text(place: Place) -> Path:
    """Write the text that perplexity is taken of, the same as in the rounding table."""
    path = place.work / "alpaca-answers.txt"
    write_text(place.data, path)
    return path


def sample(source: Path, target: Path, count: int, seed: int = 0) -> Path:
    """Write a csv of ``count`` rows drawn from another, half of each label if it has labels.

    Such files are sorted by kind of prompt, so that the first rows would not stand for the rest.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row.get("label", "")].append(row)
    generator = random.Random(seed)
    drawn: list[dict[str, str]] = []
    for label in sorted(groups):
        share = count // len(groups)
        drawn += generator.sample(groups[label], min(share, len(groups[label])))
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(drawn)
    return target


def mixed(kinds: Sequence[Sequence[Any]], seed: int = 0) -> list[Any]:
    """Return as many rows of each kind as the rarest has, shuffled."""
    generator = random.Random(seed)
    count = min(len(rows) for rows in kinds)
    chosen = [row for rows in kinds for row in generator.sample(list(rows), count)]
    generator.shuffle(chosen)
    return chosen


def safe_first_data(place: Place) -> None:
    """Write ./runs/safe-first.jsonl and its held-out counterpart, for benchmarks/policies/safe-first.yml."""
    for split, name in (("train", "safe-first"), ("test", "safe-first-heldout")):
        kinds = [_short(place.data / form.format(split=split)) for form in (HELPFUL, HARMLESS)]
        rows = mixed(kinds)
        path = Path("runs") / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows)} pairs, half of each kind", flush=True)


def _short(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if _characters(row) <= MAX_CHARS]


def _characters(row: dict[str, Any]) -> int:
    prompt, chosen, rejected = (
        sum(len(message["content"]) for message in row[key]) for key in ("prompt", "chosen", "rejected")
    )  # fmt: skip
    return prompt + max(chosen, rejected)
