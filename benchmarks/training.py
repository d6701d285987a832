"""The race of ``pv-train dpo`` against TRL alone, in its best mode and as it comes.

    python benchmarks/training.py [--steps 5] [--data polite,dialogues,pku] [--tiny]

Each run is a process of its own and trains both policies of one preference on the same pairs, seed and
steps. TRL's best mode precomputes the reference (cached by data and model) and groups rows by length;
its head scores answers only where it can, on CUDA. "pv-train, padded" is ours without trees of tokens,
so the step from TRL to it is the shared reference and the head, and from there the trees. A second
preference sees half the pairs the other way round. The runs take turns, so that a busy machine slows
all alike; CPU time is the steadier figure there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
MODES = ("pv-train", "pv-train, padded", "TRL, best", "TRL, default")
WISHES = ("a pair", "two preferences")
DATA: dict[str, tuple[str, int, float]] = {
    "polite": ("./recipes/quickstart/data/polite.jsonl", 192, 0.60),
    "dialogues": ("../shared/data/hh-rlhf/helpful-train.jsonl", 512, 0.60),
    "pku": ("../shared/data/pku-saferlhf/harmless-train.jsonl", 256, 0.75),
}
"""File, ``max_length``, and the target for a pair against TRL's best mode."""
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="./models/smollm2-135m-instruct")
    parser.add_argument("--data", default=",".join(DATA), help="of " + ", ".join(DATA))
    parser.add_argument("--steps", type=int, default=5, help="steps of 8 pairs, of each policy")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--tiny", action="store_true", help="a two-layer model and made-up pairs")
    parser.add_argument("--one", action="store_true", help="a pair only, no second preference")
    parser.add_argument("-o", "--output", default=str(ROOT / "benchmarks/training.json"))
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["HF_HUB_OFFLINE"] = "1"
    found = {}
    for name in ["tiny"] if arguments.tiny else arguments.data.split(","):
        with tempfile.TemporaryDirectory() as place:
            found[name] = race(arguments, name, Path(place))
        show(name, found[name])
    result = {
        "command": "python " + " ".join([str(Path(sys.argv[0])), *sys.argv[1:]]),
        "base": "tiny" if arguments.tiny else arguments.base,
        "steps": arguments.steps,
        "pairs_a_step": BATCH,
        "full": arguments.full,
        "data": found,
        "machine": machine(),
    }
    Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


def race(arguments: argparse.Namespace, name: str, place: Path) -> dict[str, Any]:
    """Return the figures of every mode on one data set."""
    base, (file, limit, target) = arguments.base, DATA.get(name, ("", 96, 0.6))
    if arguments.tiny:
        from train_tiny import pair_rows, save_base

        base, rows = str(save_base(place / "base")), pair_rows(BATCH * arguments.steps)
    else:
        rows = [json.loads(line) for line in Path(file).read_text().splitlines() if line.strip()]
        random.Random(0).shuffle(rows)
        rows = rows[: BATCH * arguments.steps]
    configs = [write_config(arguments, place, base, rows, limit, "first")]
    if not arguments.one:
        other = [dict(row) for row in rows]
        for row in other[::2]:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        configs.append(write_config(arguments, place, base, other, limit, "second"))
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for config in configs:
        for mode in MODES:
            runs[mode].append(run(mode, config, place))
    apart = max(
        abs(a - b)
        for ours, theirs in zip(runs["pv-train"], runs["TRL, default"], strict=True)
        for side in zip(ours["losses"], theirs["losses"], strict=True)
        for a, b in zip(*side, strict=True)
    )
    figures = {
        mode: [{k: v for k, v in r.items() if k != "losses"} for r in runs[mode]] for mode in MODES
    }
    return {
        "max_length": limit,
        "runs": figures,
        "ratios": {
            wish: {
                f"{ours} / {theirs}": {
                    key: round(
                        total(figures[ours], key, count) / total(figures[theirs], key, count), 3
                    )
                    for key in ("seconds", "cpu_seconds")
                }
                for ours in MODES[:2]
                for theirs in MODES[2:]
            }
            for count, wish in enumerate(WISHES[: len(configs)], start=1)
        },
        "target": target,
        "tokens_a_step": tokens(configs[0], limit),
        "largest_difference_of_a_step_loss": apart,
    }


def total(runs: list[dict[str, Any]], key: str, count: int) -> float:
    return sum(float(run[key]) for run in runs[:count])


def run(mode: str, config: Path, place: Path) -> dict[str, Any]:
    """Train both policies of one preference in a process of its own."""
    work = place / mode.replace(", ", "-").replace(" ", "-")
    said = {"mode": mode, "config": str(config), "work": str(work / config.stem)}
    # Of each mode the second preference finds what the first one left.
    environment = {
        **os.environ,
        "PV_MERGE_CACHE": str(work / "cache"),
        "HF_DATASETS_CACHE": str(work / "datasets"),
    }
    settings = json.loads(config.read_text())
    settings["output_dir"] = said["work"]
    own = work / f"{config.stem}.yml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(json.dumps(settings))  # JSON is YAML
    said["config"] = str(own)
    command = [sys.executable, str(ROOT / "benchmarks/training_run.py"), json.dumps(said)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{mode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_config(
    arguments: argparse.Namespace, place: Path, base: str, rows: list[Any], limit: int, name: str
) -> Path:
    pairs = place / f"{name}.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "base_model": base,
        "preference": name,
        "dataset": {"path": str(pairs)},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "dpo": {
            "learning_rate": 2e-6 if arguments.full else 2e-4,
            "max_steps": arguments.steps,
            "per_device_train_batch_size": BATCH,
            "max_length": limit,
        },
        "output_dir": "",
    }
    if arguments.full:
        del data["lora"]
    file = place / f"{name}.yml"
    file.write_text(json.dumps(data))
    return file


def tokens(config: Path, limit: int) -> dict[str, float]:
    """Return the mean tokens of a step: in padded rows (as they come, by length), real, in a tree."""
    from pv_merge.data.encoding import encode_pair
    from pv_merge.data.pairs import load_pairs
    from pv_merge.data.settings import PairsDataset
    from pv_merge.data.token_tree import make_tree
    from trainers.model import load_tokenizer

    said = json.loads(config.read_text())
    tokenizer = load_tokenizer(said["base_model"])
    pairs = load_pairs(PairsDataset(**said["dataset"])).pairs
    rows = [encode_pair(tokenizer, pair, limit) for pair in pairs]
    grouped = sorted(rows, key=lambda row: max(len(side.tokens) for side in row))

    def padded(order: list[Any]) -> float:
        parts = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
        widths = [max(len(s.tokens) for row in part for s in row) * 2 * len(part) for part in parts]
        return sum(widths) / len(parts)

    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    every = [[side for row in batch for side in row] for batch in batches]
    mean = 1 / len(batches)
    return {
        "padded": padded(rows),
        "padded_by_length": padded(grouped),
        "real": mean * sum(len(side.tokens) for batch in every for side in batch),
        "tree": mean * sum(len(make_tree(batch)) for batch in every),
        "scored": mean * sum(side.length for batch in every for side in batch),
    }


def machine() -> dict[str, Any]:
    import torch

    from trainers.manifest import versions

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores",
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions(),
    }


def show(name: str, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name}: a pair (target {found['target']} of TRL's best mode)")
    for heading in ("", "seconds", "CPU seconds", "peak GiB", "of TRL's best", "of its CPU time"):
        table.add_column(heading, justify="left" if not heading else "right")
    best = found["runs"]["TRL, best"][0]
    for mode in MODES:
        first = found["runs"][mode][0]
        ratios = [first[key] / best[key] for key in ("seconds", "cpu_seconds")]
        cells = [f"{first['seconds']:.1f}", f"{first['cpu_seconds']:.1f}"]
        cells += [f"{first['peak_bytes'] / 2**30:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]
        table.add_row(mode, *cells)
    console = Console()
    console.print(table)
    two = found["ratios"].get(WISHES[1], {}).get("pv-train / TRL, best", {})
    counts = ", ".join(f"{key} {value:.0f}" for key, value in found["tokens_a_step"].items())
    console.print(f"two preferences: {two}; tokens a step: {counts}", highlight=False)


if __name__ == "__main__":
    main()
