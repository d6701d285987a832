"""Every training recipe is read, checked, and run for two steps on a tiny stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainers.config_file import read_settings, read_sft_settings
from trainers.dpo import train
from trainers.sft import train_base

from train_tiny import ROOT, pair_rows, save_base, write_rows

pytestmark = pytest.mark.slow  # a run of two steps for each recipe

RECIPES = sorted((ROOT / "recipes/train").glob("*/*.yml")) + sorted(
    path for path in (ROOT / "recipes/quickstart").glob("*.yml") if "train" in path.name
)
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]

FORMS: dict[str, list[dict[str, Any]]] = {
    "pairs": pair_rows(6),
    "instruction": [
        {"instruction": row["prompt"], "input": "", "output": row["chosen"], **row}
        for row in pair_rows(6)
    ],
    "hh-rlhf": [
        {
            side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}"
            for side in ("chosen", "rejected")
        }
        for row in pair_rows(6)
    ],
    "pku-saferlhf": [
        {
            "prompt": row["prompt"],
            "response_0": row["chosen"],
            "response_1": row["rejected"],
            "is_response_0_safe": True,
            "is_response_1_safe": i % 2 == 0,
            "better_response_id": i % 2,
            "safer_response_id": 0,
        }
        for i, row in enumerate(pair_rows(6))
    ],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_runs_for_two_steps(
    path: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    data = yaml.safe_load(path.read_text())
    kind = "dpo" if "preference" in data else "sft"
    overrides = [
        f"base_model={base}",
        f"output_dir={tmp_path / 'run'}",
        f"{kind}.max_steps=2",
        f"{kind}.per_device_train_batch_size=2",
        f"{kind}.gradient_accumulation_steps=1",
        f"{kind}.fp16=false",
        f"{kind}.bf16=false",
    ]
    for part in ("dataset", "eval_dataset"):
        if part in data:
            rows = write_rows(tmp_path / f"{part}.jsonl", FORMS[data[part].get("format", "pairs")])
            overrides += [f"{part}.path={rows}", f"{part}.split=train"]
    if kind == "dpo":
        (outcome,) = train(read_settings(path, tuple(overrides)), ["negative"])
    else:
        outcome = train_base(read_sft_settings(path, tuple(overrides)))
    assert outcome.metrics["steps"] == 2
    assert (outcome.folder / "pv_run.json").exists()


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_opens_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    kind = "dpo" if "preference" in yaml.safe_load(path.read_text()) else "sft"
    assert first.endswith(f" {kind} {path.relative_to(ROOT)}")
    assert first.startswith(
        ("# pv-train ", "# accelerate launch --config_file recipes/accelerate/")
    )


@pytest.mark.parametrize("family", ["llama-3.2-3b", "llama-3.1-8b", "mistral-7b-v0.1"])
def test_the_papers_table_11(family: str) -> None:
    common = {
        "max_length": 512,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "gradient_checkpointing": True,
        "fp16": True,
    }
    sft = read_sft_settings(ROOT / f"recipes/train/{family}/sft.yml")
    assert sft.lora is None
    assert (
        sft.sft.items()
        >= {
            **common,
            "num_train_epochs": 3,
            "gradient_accumulation_steps": 8,
            "learning_rate": 2e-5,
            "weight_decay": 0.0,
        }.items()
    )
    for preference, label in (("helpful", "better_response_id"), ("harmless", "safer_response_id")):
        dpo = read_settings(ROOT / f"recipes/train/{family}/{preference}.yml")
        assert (dpo.lora, dpo.preference, dpo.dataset.label) == (None, preference, label)
        assert dpo.base_model == sft.output_dir
        assert (
            dpo.dpo.items()
            >= {
                **common,
                "beta": 0.1,
                "num_train_epochs": 2,
                "gradient_accumulation_steps": 4,
                "learning_rate": 1e-6,
                "weight_decay": 0.05,
            }.items()
        )
