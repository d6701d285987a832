"""``python -m benchmarks.evidence gpu``: full fine-tuning, both losses, three seeds, the grid and the baselines.

Made for 25 minutes of one large GPU; it goes on where it was stopped, and writes after each part what
there is, with the parts that it did not reach.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pv_merge
from benchmarks.commands import script
from benchmarks.evidence.gpu_files import (
    LOSSES,
    Scale,
    policy_config,
    reward_config,
    write_files,
)
from benchmarks.evidence.text.baselines import measure_all, settings
from benchmarks.evidence.text.grid import grid
from benchmarks.evidence.text.setup import TWO, TextEvidence
from benchmarks.evidence.text.tradeoff import at_equal_effect, tradeoffs
from pv_merge.artifacts.provenance import versions

NEUTRAL = Path("benchmarks/results/written/neutral.txt")


def evidence(
    base: Path, data: Path, work: Path, output: Path, images: Path, scale: Scale
) -> dict[str, Any]:
    """Train, measure, and write ``output``; return what it says."""
    start = time.monotonic()
    base, work = base.resolve(), work.resolve()
    result = begun(output, scale)
    write_files(data, work, scale)
    parts: list[tuple[str, Callable[[], None]]] = [
        ("training", lambda: result.update(training=train(base, work, scale))),
        ("vectors", lambda: result.update(vectors=vectors(work, scale))),
    ]
    for loss in reversed(LOSSES):
        found = result["losses"].setdefault(loss, {})
        parts += [
            (f"{loss} grid", _part(found, "grid", lambda loss=loss: grid(of_loss(base, work, loss, scale), scale.values, images, f"text-{loss}"))),
            (f"{loss} baselines", _part(found, "baselines", lambda loss=loss: baselines(of_loss(base, work, loss, scale), scale))),
        ]  # fmt: skip
    minutes: dict[str, float] = result["minutes"]
    for name, do in parts:
        spent = (time.monotonic() - start) / 60
        if spent > scale.minutes:
            result["not_reached"].append(name)
            continue
        do()
        minutes[name] = round((time.monotonic() - start) / 60 - spent, 2)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}: {minutes[name]:g} min, written to {output}", flush=True)
    output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if result["not_reached"]:
        print(f"not reached in {scale.minutes:g} minutes: {', '.join(result['not_reached'])}; the same command goes on there")  # fmt: skip
    return result


def begun(output: Path, scale: Scale) -> dict[str, Any]:
    """Return an empty result, or what an earlier call on such a device found."""
    said = {
        "device": device(),
        "scale": json.loads(json.dumps(vars(scale))),
        "versions": versions(),
    }
    fresh: dict[str, Any] = {**said, "losses": {}, "minutes": {}}
    found = json.loads(output.read_text(encoding="utf-8")) if output.exists() else fresh
    known = {key: value for key, value in found["scale"].items() if key != "minutes"}
    wanted = {key: value for key, value in said["scale"].items() if key != "minutes"}
    same = found["device"] == said["device"] and known == wanted
    return {**(found if same else fresh), **said, "not_reached": []}


def _part(found: dict[str, Any], key: str, make: Callable[[], Any]) -> Callable[[], None]:
    return lambda: found.update({key: make()})


def device() -> str:
    """Return what everything ran on."""
    import os

    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} CPU cores"


def train(base: Path, work: Path, scale: Scale) -> dict[str, Any]:
    """Train what is missing; return the held-out figures of each run."""
    import torch

    bf16 = torch.cuda.is_available()
    runs: list[tuple[str, Path, str]] = [
        ("reward", reward_config(base, work, name, scale, bf16), "") for name in TWO
    ]
    for loss in reversed(LOSSES):
        for seed in scale.seeds:
            names = TWO if seed == scale.seeds[0] else ("harmless",)
            runs += [("dpo", policy_config(base, work, name, loss, seed, scale, bf16), "both") for name in names]  # fmt: skip
    runs.append(("dpo", policy_config(base, work, "safe-first", "dpo", scale.seeds[0], scale, bf16), "positive"))  # fmt: skip
    left = [run for run in runs if not _finished(*run)]
    if scale.jobs:
        with ThreadPoolExecutor(scale.jobs) as pool:
            list(pool.map(lambda run: _command(*run), left))
    else:
        for run in left:
            _here(*run)
    return {config.stem: _metrics(config.with_suffix("")) for _, config, _ in runs}


def _finished(kind: str, config: Path, polarity: str) -> bool:
    folder = config.with_suffix("")
    sides = {"both": ("positive", "negative"), "positive": ("positive",), "": ("",)}[polarity]
    return all((folder / side / "pv_run.json").is_file() for side in sides)


def _command(kind: str, config: Path, polarity: str) -> None:
    words = [script("pv-train"), kind, str(config), "--resume"]
    words += ["--polarity", polarity] if polarity else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{config}: {(done.stderr or done.stdout).strip()[-2000:]}")
    print(f"trained {config.stem}", flush=True)


def _here(kind: str, config: Path, polarity: Any) -> None:
    import trainers

    if kind == "dpo":
        trainers.train(config, polarity=polarity, resume=True)
    else:
        trainers.train_reward(config, resume=True)


def _metrics(folder: Path) -> dict[str, Any]:
    found = {}
    for manifest in sorted(folder.rglob("pv_run.json")):
        said = json.loads(manifest.read_text(encoding="utf-8"))
        found[manifest.parent.name] = said.get("metrics", {})
    return found


def vectors(work: Path, scale: Scale) -> dict[str, Any]:
    """Return cos(+,−) and ‖φ‖ of each vector, and of each loss the cosines between data orders (Table 8)."""
    found: dict[str, Any] = {}
    for loss in LOSSES:
        opened = {}
        for name, seed in [("helpful", scale.seeds[0]), *(("harmless", s) for s in scale.seeds)]:
            label = f"{name}-{loss}-{seed}"
            folder = work / "vectors" / label
            if not (folder / "preference_vector.json").exists():
                sides = (work / label / side for side in ("positive", "negative"))
                pv_merge.extract(*sides, folder)
            opened[label] = pv_merge.load(folder)
        orders = {label: vector for label, vector in opened.items() if label.startswith("harmless")}
        figures = pv_merge.inspect(orders) if len(orders) > 1 else None
        found[loss] = {
            "measures": {label: vector.manifest["measures"] for label, vector in opened.items()},
            "orders": None if figures is None else figures["cosines"],
            "eigenvalues": None if figures is None else figures["eigenvalues"],
        }
    return found


def of_loss(base: Path, work: Path, loss: str, scale: Scale) -> TextEvidence:
    """Return the evidence of one loss, its policies of the first seed."""
    seed = scale.seeds[0]
    policies = {name: work / f"{name}-{loss}-{seed}" for name in TWO}
    return TextEvidence(
        base=base,
        policies={**policies, "safe-first": work / f"safe-first-dpo-{seed}"},
        rewards={name: work / f"reward-{name}" for name in TWO},
        pairs={name: work / f"{name}.jsonl" for name in TWO},
        prompts=work / "prompts.jsonl",
        refusals=work / "xstest.csv",
        neutral=NEUTRAL,
        knowledge=work / "facts.jsonl",
        work=work / f"text-{loss}",
        new_tokens=scale.new_tokens,
    )


def baselines(found: TextEvidence, scale: Scale) -> dict[str, Any]:
    """Return every baseline's figures, who wins, and costs at equal effect."""
    entries = measure_all(found, settings(found, scale.weights, scale.strengths))
    kept = [{key: value for key, value in entry.items() if key != "items"} for entry in entries]
    return {"settings": kept, "tradeoffs": tradeoffs(entries), "equal_effect": at_equal_effect(entries)}  # fmt: skip
