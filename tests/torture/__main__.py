"""``make torture``: attack every command that writes, and put the counts into one file."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

IMPORTED = (
    "pv_merge.cli", "pv_merge.cli.calibrate", "pv_merge.cli.extract", "pv_merge.cli.push",
    "pv_merge.cli.run", "pv_merge.cli.sweep", "pv_merge.evaluation.sweep.pictures",
    "pv_merge.hub.push", "trainers.cli", "trainers.dpo", "matplotlib.pyplot", "peft", "trl",
)  # fmt: skip
RESULT = Path(__file__).resolve().parents[2] / "benchmarks/results/torture.json"


@click.command()
@click.option("--count", default=50, show_default=True, help="Signals of each kind, a command.")
@click.option("--seed", default=1, show_default=True, help="Which moments.")
@click.option("--only", multiple=True, help="Only these commands.")
@click.option("-o", "result", type=click.Path(path_type=Path), default=RESULT, show_default=True)
def command(count: int, seed: int, only: tuple[str, ...], result: Path) -> None:
    """Kill commands at random moments; exit with 1 if a fault was found."""
    folder = Path(tempfile.mkdtemp(prefix="pv-merge-torture-"))
    os.environ |= {"PV_MERGE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    os.environ |= {"HF_HOME": str(folder / "hub"), "HF_TOKEN_PATH": str(folder / "no-token")}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    from torture.world import start_hub

    endpoint, hub = start_hub()
    try:
        found = kills(folder, endpoint, count, seed, only, result)
    finally:
        os.kill(hub, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
    faults = [line for part in found.values() for line in part["faults"]]
    click.echo(f"{len(faults)} faults; counts in {result}")
    sys.exit(bool(faults))


def kills(
    folder: Path, endpoint: str, count: int, seed: int, only: tuple[str, ...], result: Path
) -> dict[str, Any]:
    """Send every signal ``count`` times to each command."""
    from torture.kills import SIGNALS, Kills
    from torture.world import cases, make

    warm()
    make(folder / "world")
    found = {}
    for case in cases(folder / "world", endpoint):
        if only and case.name not in only:
            continue
        start = time.monotonic()
        trials = Kills(case, folder / "world", folder / "room", seed)
        for number in SIGNALS * count:
            for fault in trials.trial(number):
                click.echo(fault)
        found[case.name] = {"seed": seed, **trials.to_dict()}
        keep(result, {"kills": found})
        seconds = time.monotonic() - start
        click.echo(
            f"{case.name}: {3 * count} signals, {len(trials.faults)} faults, {seconds:.0f} s"
        )
    return found


def keep(result: Path, found: dict[str, Any]) -> None:
    """Put counts among those that the file has already."""
    told: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    for part, counts in found.items():
        told[part] = {**told.get(part, {}), **counts}
    result.write_text(json.dumps(told, indent=1) + "\n")


def warm() -> None:
    """Import what the commands import, so that a fork starts at once."""
    import torch

    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)


if __name__ == "__main__":
    command()
