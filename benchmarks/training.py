"""Wall time of ``pv-train dpo`` against one plain TRL run for each policy, in one process.

    python benchmarks/training.py [--steps 5] [--tiny]

Both sides get the same config, pairs, seed and steps; the plain side computes the reference in every
step, as ``trl dpo`` does. They take turns, so that a busy machine slows both; the ratio of CPU time is the
steadier one there. Loading of models, data
and tokens counts on both sides; Python's imports count on neither.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
TARGETS = {"a pair": 0.85, "two preferences over the same pairs": 0.80}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="./models/smollm2-135m-instruct")
    parser.add_argument("--pairs", default="./recipes/quickstart/data/polite.jsonl")
    parser.add_argument("--steps", type=int, default=5, help="steps of 8 pairs, of each policy")
    parser.add_argument("--max-length", type=int, default=192, help="tokens")
    parser.add_argument("--tiny", action="store_true", help="a two-layer model and made-up pairs")
    parser.add_argument("-o", "--output", default=str(ROOT / "benchmarks/training.json"))
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # for both sides
    with tempfile.TemporaryDirectory() as place:
        result = measure(arguments, Path(place))
    show(result)
    Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    from trainers.progress import quiet_libraries

    quiet_libraries()
    base, rows = arguments.base, read_rows(arguments.pairs, 8 * arguments.steps)
    if arguments.tiny:
        from train_tiny import pair_rows, save_base

        base, rows = str(save_base(place / "base")), pair_rows(8 * arguments.steps)
    configs = []
    for name in ("first", "second"):
        if (
            name == "second"
        ):  # another preference, that disagrees with the first on every other pair
            for row in rows[::2]:
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        configs.append(config(arguments, place, base, name, rows))
    ours, plain, furthest = [], [], 0.0
    ours_cpu, plain_cpu = [], []
    os.environ["PV_MERGE_CACHE"] = str(place / "cache of the warm-up")
    run_ours(config(arguments, place, base, "warm-up", rows[:8], steps=1), ["positive"])
    os.environ["PV_MERGE_CACHE"] = str(place / "cache")
    for settings in configs:
        first, positive = run_plain(settings, "positive", place)
        pair, found = run_ours(settings, ["positive", "negative"])
        second, negative = run_plain(settings, "negative", place)
        ours.append(pair[0])
        ours_cpu.append(pair[1])
        plain += [first[0], second[0]]
        plain_cpu += [first[1], second[1]]
        for a, b in zip(found, (positive, negative), strict=True):
            furthest = max(furthest, *(abs(x - y) for x, y in zip(a, b, strict=True)))
    return {
        "command": "python " + " ".join([str(Path(sys.argv[0])), *sys.argv[1:]]),
        "base": "tiny" if arguments.tiny else base,
        "steps": arguments.steps,
        "pairs_a_step": 8,
        "pv_train_seconds": [round(x, 2) for x in ours],
        "plain_trl_seconds": [round(x, 2) for x in plain],
        "ratios": ratios(ours, plain),
        "pv_train_cpu_seconds": [round(x, 2) for x in ours_cpu],
        "plain_trl_cpu_seconds": [round(x, 2) for x in plain_cpu],
        "ratios_of_cpu_time": ratios(ours_cpu, plain_cpu),
        "targets": TARGETS,
        "largest_difference_of_a_step_loss": furthest,
        "machine": machine(),
    }


def ratios(ours: list[float], plain: list[float]) -> dict[str, float]:
    pair, both = ours[0] / (plain[0] + plain[1]), sum(ours) / sum(plain)
    return dict(zip(TARGETS, (round(pair, 3), round(both, 3)), strict=True))


def clock() -> tuple[float, float]:
    """Return (wall seconds, CPU seconds of this process); the latter is deaf to a busy machine."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    now = clock()
    return now[0] - start[0], now[1] - start[1]


def read_rows(path: str, count: int) -> list[dict[str, Any]]:
    if not (ROOT / path).exists():
        return []
    lines = (ROOT / path).read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [rows[i % len(rows)] for i in range(count)] if count <= len(rows) else rows


def config(
    arguments: argparse.Namespace,
    place: Path,
    base: str,
    name: str,
    rows: list[dict[str, Any]],
    steps: int | None = None,
) -> Any:
    import yaml

    from trainers.config_file import read_settings

    pairs = place / f"{name}.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "base_model": base,
        "preference": name,
        "dataset": {"path": str(pairs)},
        "lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        "dpo": {
            "learning_rate": 2e-4,
            "max_steps": steps or arguments.steps,
            "per_device_train_batch_size": 8,
            "max_length": arguments.max_length,
        },
        "output_dir": str(place / name),
    }
    file = place / f"{name}.yml"
    file.write_text(yaml.safe_dump(data))
    return read_settings(file)


def run_ours(settings: Any, polarities: list[Any]) -> tuple[tuple[float, float], list[list[float]]]:
    from trainers.dpo import train

    gc.collect()
    start = clock()
    outcomes = train(settings, polarities)
    seconds = since(start)
    logs = [json.loads((o.folder / "pv_training_log.json").read_text()) for o in outcomes]
    return seconds, [losses(log) for log in logs]


def run_plain(settings: Any, polarity: str, place: Path) -> tuple[tuple[float, float], list[float]]:
    """Train one policy with TRL's DPOTrainer alone."""
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOTrainer

    from pv_merge.data.pairs import load_pairs
    from trainers.arguments import dpo_arguments
    from trainers.model import load_model, load_tokenizer, lora_config
    from trainers.progress import no_future_warnings
    from trainers.tokens import to_rows

    gc.collect()
    start = clock()
    arguments = dpo_arguments(settings, place / "plain")
    arguments.precompute_ref_log_probs = False
    tokenizer = load_tokenizer(settings.base_model)
    pairs = load_pairs(settings.dataset).pairs
    if polarity == "negative":
        pairs = tuple(pair.swapped() for pair in pairs)
    trainer = DPOTrainer(
        model=load_model(settings),
        args=arguments,
        train_dataset=to_rows(pairs, tokenizer.chat_template is not None),
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )
    trainer.remove_callback(PrinterCallback)
    with no_future_warnings():
        trainer.train()
    trainer.save_model(str(place / "plain-result"))
    return since(start), losses(trainer.state.log_history)


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [float(entry["loss"]) for entry in log if "loss" in entry]


def machine() -> dict[str, Any]:
    import torch
    import transformers
    import trl

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores",
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{result['base']}: {result['steps']} steps of 8 pairs for each policy"
    table = Table(title=title)
    for heading in ("", "plain TRL, s", "pv-train, s", "ratio", "of CPU time", "target"):
        table.add_column(heading, justify="left" if not heading else "right")
    for key, count in (("a pair", 1), ("two preferences over the same pairs", 2)):
        plain = sum(result["plain_trl_seconds"][: 2 * count])
        ours = sum(result["pv_train_seconds"][:count])
        found = (result["ratios"][key], result["ratios_of_cpu_time"][key], TARGETS[key])
        cells = (f"{plain:.1f}", f"{ours:.1f}", *(f"{ratio:.2f}" for ratio in found))
        table.add_row(key, *cells)
    console = Console()
    console.print(table)
    console.print(
        "largest difference between the losses of a step: "
        f"{result['largest_difference_of_a_step_loss']:.1e}"
    )


if __name__ == "__main__":
    main()
