"""Layouts of 3B and 8B: ``pv-merge run`` against reading and writing the same files, by threads.

Disks are small, so there is one base and one dense vector, and every preference is a hard link to
it. What an NVMe disk would bound is the bytes over 7 GB/s.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.commands import in_turn, script
from benchmarks.inputs import SIZES, write_model

NVME = 7e9
"""Bytes a second of a fast disk."""


def large(work: Path, size_name: str, repeats: int, preferences: int = 2) -> dict[str, Any]:
    """Time one layout; leaves nothing behind."""
    size = SIZES[size_name]
    models, out = work / size_name, work / "out"
    base = write_model(models / "base", size, 0)
    vector = write_model(models / "vector0", size, 1)
    said = {"kind": "preference_vector", "format": 1, "dtype": "bfloat16", "form": "dense"}
    vectors = [vector]
    for number in range(preferences):
        folder = models / f"vector{number}"
        if number:
            shutil.copytree(vector, folder, copy_function=os.link, dirs_exist_ok=True)
            (folder / "preference_vector.json").unlink(missing_ok=True)
            vectors.append(folder)
        manifest = {**said, "preference": f"p{number}", "base": {"path": str(base)}}
        (folder / "preference_vector.json").write_text(json.dumps(manifest))
    lines = ["merge_method: preference_vector", f"base_model: {base}", "models:"]
    for number, folder in enumerate(vectors):
        lines.append(f"  - model: {folder}")
        lines.append(f"    parameters: {{preference: p{number}, polarity: vector, eta: 0.01}}")
    recipe = work / "large.yml"
    recipe.write_text("\n".join([*lines, "out_dtype: bfloat16"]) + "\n")
    run = [script("pv-merge"), "run", str(recipe), str(out)]
    read = " ".join(f"{folder}/*.safetensors" for folder in (base, *vectors))
    copy = f"cat {read} > /dev/null && mkdir -p {out} && cp {base}/*.safetensors {out}/"
    commands = {
        "pv-merge run": run,
        "pv-merge run, 1 thread": [*run, "--threads", "1"],
        "read all, write one (cat, cp)": ["sh", "-c", copy],
    }
    print(f"{size_name}, {preferences} preferences, {size.parameters / 1e9:.2f} B parameters")
    timings = in_turn(commands, repeats, [out])
    limit = timings["read all, write one (cat, cp)"].median
    shutil.rmtree(models)
    moved = 2 * size.parameters * (2 + preferences)
    return {
        "size": size_name,
        "parameters": size.parameters,
        "preferences": preferences,
        "bytes": moved,
        "nvme_s": round(moved / NVME, 2),
        "rows": {
            name: {**timing.to_dict(), "of_limit": round(timing.median / limit, 3)}
            for name, timing in timings.items()
        },
    }
