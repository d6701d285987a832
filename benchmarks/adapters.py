"""Adapters instead of checkpoints: ``pv-merge run`` against PEFT's own concatenation of adapters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.commands import in_turn, script
from benchmarks.inputs import SIZES, write_model

RANK = 8
ETA = 0.5


def adapters(work: Path, size_name: str, preferences: int, repeats: int) -> dict[str, Any]:
    """Time a merge of adapters into their base, by us and by PEFT, each a whole process."""
    folder, out, size = work / size_name, work / "out", SIZES[size_name]
    base = write_model(folder / "base", size, 0)
    names = [f"{side}{number}" for number in range(preferences) for side in ("positive", "negative")]  # fmt: skip
    for seed, name in enumerate(names):
        write_adapter(folder / "adapters" / name, base, seed)
    lines = ["merge_method: preference_vector", f"base_model: {base}", "models:"]
    for number in range(preferences):
        for side in ("positive", "negative"):
            lines.append(f"  - model: {folder}/adapters/{side}{number}")
            lines.append(f"    parameters: {{preference: p{number}, polarity: {side}, eta: {ETA}}}")
    recipe = work / "adapters.yml"
    recipe.write_text("\n".join([*lines, "parameters: {round_to: bfloat16}", "out_dtype: bfloat16", ""]))  # fmt: skip
    folders = [str(folder / "adapters" / name) for name in names]
    commands = {
        "PEFT add_weighted_adapter cat": [sys.executable, "-m", "benchmarks.adapters", str(base), str(out), *folders],
        "pv-merge run": [script("pv-merge"), "run", str(recipe), str(out)],
        "pv-merge run --no-report": [script("pv-merge"), "run", str(recipe), str(out), "--no-report"],
    }  # fmt: skip
    print(f"{size_name}, {preferences} preferences as adapters of rank {RANK}")
    timings = in_turn(commands, repeats, [out])
    peer = timings["PEFT add_weighted_adapter cat"].median
    return {
        "size": size_name,
        "preferences": preferences,
        "rank": RANK,
        "rows": {
            name: {**timing.to_dict(), "of_peft": round(timing.median / peer, 4)}
            for name, timing in timings.items()
        },
    }


def write_adapter(folder: Path, base: Path, seed: int) -> None:
    """Write a random adapter of every linear layer."""
    if (folder / "adapter_config.json").exists():
        return
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(model, config).save_pretrained(folder)


def merge_by_peft(base: str, out: str, folders: list[str]) -> None:
    """Concatenate adapters with weights +eta and -eta, merge them into the base, and save it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, folders[0], adapter_name="a0")
    for number, folder in enumerate(folders[1:], start=1):
        model.load_adapter(folder, f"a{number}")
    names = [f"a{number}" for number in range(len(folders))]
    weights = [ETA if number % 2 == 0 else -ETA for number in range(len(folders))]
    model.add_weighted_adapter(names, weights, "mix", combination_type="cat")
    model.set_adapter("mix")
    model.merge_and_unload(adapter_names=["mix"]).save_pretrained(out)


if __name__ == "__main__":
    merge_by_peft(sys.argv[1], sys.argv[2], sys.argv[3:])
