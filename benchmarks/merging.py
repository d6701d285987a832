"""The merging benchmark: ours against stock mergekit's methods, and against plain reading and writing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.commands import in_turn, script
from benchmarks.inputs import SIZES, Size, write_model, write_recipe


def merges(work: Path, size_name: str, preferences: int, repeats: int) -> dict[str, Any]:
    """Time every way to merge one size with one number of preferences."""
    models, out = work / size_name, work / "out"
    size = SIZES[size_name]
    inputs = write_inputs(models, size, preferences)
    recipes = {
        name: write_recipe(work / f"{name}.yml", models, preferences, method, **top)
        for name, method, top in (
            ("ours", "preference_vector", {"out_dtype": "bfloat16"}),
            ("arithmetic32", "task_arithmetic", {"dtype": "float32", "out_dtype": "bfloat16"}),
            ("arithmetic16", "task_arithmetic", {}),
            ("ties32", "ties", {"dtype": "float32", "out_dtype": "bfloat16"}),
        )
    }
    mergekit, ours = script("mergekit-yaml"), script("pv-merge")
    base = ["--base", str(inputs[0]), "--name", "p0"]
    stock = ["--no-copy-tokenizer", "--quiet"]
    files = " ".join(str(folder / "model.safetensors") for folder in inputs)
    copy = f"cat {files} > /dev/null && mkdir -p {out} && cp {inputs[0]}/model.safetensors {out}/"
    halves = [str(folder) for folder in inputs[1:3]]
    pair = " ".join(f"{folder}/model.safetensors" for folder in (str(inputs[0]), *halves))
    commands = {
        "task_arithmetic float32": [mergekit, str(recipes["arithmetic32"]), str(out), *stock],
        "task_arithmetic bf16": [mergekit, str(recipes["arithmetic16"]), str(out), *stock],
        "ties float32": [mergekit, str(recipes["ties32"]), str(out), *stock],
        "preference_vector in mergekit-yaml": [mergekit, str(recipes["ours"]), str(out), *stock],
        "pv-merge run": [ours, "run", str(recipes["ours"]), str(out)],
        "pv-merge run --no-report": [ours, "run", str(recipes["ours"]), str(out), "--no-report"],
        "imports of pv-merge run": [sys.executable, "-c", "import pv_merge.merging.run"],
        "read all, write one (cat, cp)": ["sh", "-c", copy],
        "pv-merge extract, dense": [ours, "extract", *halves, "-o", str(out), *base, "--dtype", "bfloat16"],
        "read three, write one (cat, cp)": ["sh", "-c", copy.replace(files, pair)],
    }  # fmt: skip
    if size.parameters > 5e8:  # it sorts every tensor, which takes minutes
        del commands["ties float32"]
    print(f"{size_name}, {preferences} preferences, {size.parameters / 1e6:.0f} M parameters")
    timings = in_turn(commands, repeats, [out])
    reference = timings["task_arithmetic float32"].median
    limit = timings["read all, write one (cat, cp)"].median
    imports = timings["imports of pv-merge run"].median
    rows = {}
    for name, timing in timings.items():
        rows[name] = {**timing.to_dict(), "of_task_arithmetic": round(timing.median / reference, 4)}
    for name in ("pv-merge run", "pv-merge run --no-report"):
        rows[name]["without_imports_of_limit"] = round((timings[name].median - imports) / limit, 3)
        rows[name]["of_limit"] = round(timings[name].median / limit, 3)
    rows["pv-merge extract, dense"]["of_limit"] = round(
        timings["pv-merge extract, dense"].median
        / timings["read three, write one (cat, cp)"].median,
        3,
    )
    rows["preference_vector in mergekit-yaml"]["of_task_arithmetic_bf16"] = round(
        timings["preference_vector in mergekit-yaml"].median
        / timings["task_arithmetic bf16"].median,
        4,
    )
    return {
        "size": size_name,
        "parameters": size.parameters,
        "preferences": preferences,
        "largest_tensor_mb": round(
            2e-6 * max(torch.Size(s).numel() for _, s in size.tensors().values())
        ),
        "rows": rows,
    }


def grid(work: Path, size_name: str, points: int, repeats: int) -> dict[str, Any]:
    """Time a grid in one read, to disk and in memory, against as many stock merges (and loads)."""
    models, out = work / size_name, work / "out"
    write_inputs(models, SIZES[size_name], 2)
    recipe = write_recipe(work / "grid.yml", models, 2, "preference_vector", out_dtype="bfloat16")
    axes = grid_axes(points)
    etas = [word for name, values in axes.items() for word in ("--eta", f"{name}={values}")]
    etas = etas if points > 1 else []  # one point is a plain run
    stock = [script("mergekit-yaml"), str(recipe), str(out), "--no-copy-tokenizer", "--quiet"]
    load = (
        "import sys, time, torch; from transformers import AutoModelForCausalLM;"
        f"AutoModelForCausalLM.from_pretrained({str(models / 'base')!r}, dtype=torch.bfloat16)"
    )
    live = [sys.executable, "-m", "benchmarks.live", "grid", str(recipe), str(models / "base")]
    commands = {
        "mergekit-yaml, one point": stock,
        f"pv-merge run, {points} points": [script("pv-merge"), "run", str(recipe), str(out), *etas, "--no-report"],
        "loading one result": [sys.executable, "-c", load],
        f"in memory, {points} points": [*live, *axes.values()],
    }  # fmt: skip
    print(f"{size_name}, grid of {points} points")
    timings = in_turn(commands, repeats, [out])
    one = timings["mergekit-yaml, one point"].median
    load_s = timings["loading one result"].median
    disk = timings[f"pv-merge run, {points} points"].median
    memory = timings[f"in memory, {points} points"].median
    return {
        "size": size_name,
        "points": points,
        "rows": {name: timing.to_dict() for name, timing in timings.items()},
        "to_disk_of_stock": round(disk / (points * one), 4),
        "in_memory_of_stock": round(memory / (points * (one + load_s)), 4),
    }


def grid_axes(points: int) -> dict[str, str]:
    """Return the etas of a square grid; of a line if ``points`` is no square above 1."""
    side = round(points**0.5)
    first, second = (side, side) if side > 1 and side * side == points else (points, 1)

    def values(count: int) -> str:
        return ",".join(f"{-1 + 2 * i / (count - 1):g}" for i in range(count)) if count > 1 else "1"

    return {"p0": values(first), "p1": values(second)}


def write_inputs(models: Path, size: Size, preferences: int) -> list[Path]:
    """Write base and policies; return their folders."""
    inputs = [write_model(models / "base", size, 0)]
    for number in range(preferences):
        for index, polarity in enumerate(("positive", "negative")):
            seed = 1 + 2 * number + index
            inputs.append(write_model(models / f"{polarity}{number}", size, seed, around=0))
    return inputs


def first_merge(work: Path, size_name: str, repeats: int) -> dict[str, Any]:
    """Time a merge with an empty cache of kernels, which compiles them, beside the next one."""
    models, out, cache = work / size_name, work / "out", work / "cache"
    write_inputs(models, SIZES[size_name], 2)
    recipe = write_recipe(work / "first.yml", models, 2, "preference_vector", out_dtype="bfloat16")
    run = ["env", f"PV_MERGE_CACHE={cache}", script("pv-merge"), "run", str(recipe), str(out)]
    commands = {
        "first": ["sh", "-c", f"rm -rf {cache} && {' '.join(run)}"],
        "second": run,
    }
    print(f"{size_name}, the first merge on a machine")
    timings = in_turn(commands, repeats, [out])
    shutil.rmtree(cache)
    return {name: timing.to_dict() for name, timing in timings.items()}


def start_up(work: Path, repeats: int) -> dict[str, Any]:
    """Time the help texts, and the check of a sharded 8B layout (files without contents)."""
    from benchmarks.layout import write_layout

    folder = work / "8B"
    for name in ("base", "positive0", "negative0"):
        write_layout(folder / name)
    recipe = write_recipe(work / "check.yml", folder, 1, "preference_vector", out_dtype="bfloat16")
    commands = {
        "pv-merge --help": [script("pv-merge"), "--help"],
        "pv-train --help": [script("pv-train"), "--help"],
        "pv-merge check, 8B in shards": [script("pv-merge"), "check", str(recipe)],
    }
    print("start-up")
    timings = in_turn(commands, repeats)
    shutil.rmtree(folder)
    return {name: timing.to_dict() for name, timing in timings.items()}
