"""``make fuzz``: many inputs to each reader, in bounded time; the counts go into one file."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import click

RESULT = Path(__file__).resolve().parents[2] / "benchmarks/results/fuzz.json"
CORPUS = Path(__file__).resolve().parent / "corpus"


@click.command()
@click.option("--count", default=100_000, show_default=True, help="Inputs, a reader.")
@click.option("--seconds", default=120.0, show_default=True, help="Most time, a reader.")
@click.option("--seed", default=1, show_default=True, help="Which inputs.")
@click.option("--only", multiple=True, help="Only these readers.")
@click.option("-o", "result", type=click.Path(path_type=Path), default=RESULT, show_default=True)
def command(count: int, seconds: float, seed: int, only: tuple[str, ...], result: Path) -> None:
    """Give each reader inputs; exit with 1 if anything but our errors left one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="pv-merge-fuzz-") as work:
        os.environ |= {"PV_MERGE_CACHE": f"{work}/cache", "HF_DATASETS_CACHE": f"{work}/data"}
        from fuzz.targets import TARGETS

        faults = 0
        for target in TARGETS:
            if not only or target.name in only:
                found = fuzz(target, Path(work), count, seconds, seed)
                keep(result, target.name, found)
                faults += len(found["faults"])
                click.echo(f"{target.name}: seed {seed}, {found['inputs']} inputs in {found['seconds']} s, "
                           f"{found['taken']} taken, {len(found['faults'])} faults")  # fmt: skip
    sys.exit(bool(faults))


def fuzz(target: Any, work: Path, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return the counts of one reader; each new kind of fault is printed and kept in the corpus."""
    from fuzz.guard import FoundError, read, warm

    folder = work / target.name.replace(" ", "-")
    folder.mkdir()
    warm(target, folder)
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    slowest, start = 0.0, time.monotonic()
    for number in range(count):
        if time.monotonic() - start > seconds:
            break
        data = target.make(Random(f"{seed} {number}"))
        counts["inputs"] += 1
        try:
            taken, spent = read(target.parse, folder, data)
        except FoundError as fault:
            kind = str(fault)[:40]
            if kind not in faults:
                faults[kind] = save(target.name, data)
                click.echo(f"{target.name}, input {number}: {fault}; kept as {faults[kind]}")
            continue
        counts["taken" if taken else "refused"] += 1
        slowest = max(slowest, spent)
    return {
        "seed": seed,
        "inputs": counts["inputs"],
        "taken": counts["taken"],
        "refused": counts["refused"],
        "slowest_s": round(slowest, 3),
        "seconds": round(time.monotonic() - start, 1),
        "faults": sorted(faults),
    }


def save(name: str, data: bytes) -> str:
    """Keep an input in the corpus, which the tests read; return its name there."""
    place = CORPUS / name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    path = place / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path.name


def keep(result: Path, name: str, found: dict[str, Any]) -> None:
    """Put the counts of one reader among those that the file has already."""
    told = json.loads(result.read_text()) if result.exists() else {}
    told[name] = found
    result.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    command()
