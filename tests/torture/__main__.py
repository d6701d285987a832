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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torture.world import Case

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
        kills(folder, endpoint, count, seed, only, result)
    finally:
        os.kill(hub, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
    found = json.loads(result.read_text())["kills"]
    faults = [line for part in found.values() for line in part["faults"]]
    click.echo(f"{len(faults)} faults; counts in {result}")
    sys.exit(bool(faults))


def kills(
    folder: Path, endpoint: str, count: int, seed: int, only: tuple[str, ...], result: Path
) -> None:
    """Send every signal ``count`` times to each command."""
    from torture.forks import in_a_copy
    from torture.world import cases, make

    in_a_copy(lambda: make(folder / "world"))
    for case in cases(folder / "world", endpoint):
        if not only or case.name in only:
            in_a_copy(partial(one, case, folder, count, seed, result))


def one(case: Case, folder: Path, count: int, seed: int, result: Path) -> None:
    """Kill one command, and keep the counts."""
    from torture.kills import SIGNALS, Kills

    for name in ("pv_merge.cli", "trainers.cli", *case.imports):
        importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    start = time.monotonic()
    trials = Kills(case, folder / "world", folder / "room", seed)
    for number in SIGNALS * count:
        for fault in trials.trial(number):
            click.echo(fault)
    keep(result, {"kills": {case.name: {"seed": seed, **trials.to_dict()}}})
    seconds = time.monotonic() - start
    click.echo(f"{case.name}: {3 * count} signals, {len(trials.faults)} faults, {seconds:.0f} s")


def keep(result: Path, found: dict[str, Any]) -> None:
    """Put counts among those that the file has already."""
    told: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    for part, counts in found.items():
        told[part] = {**told.get(part, {}), **counts}
    result.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    command()
