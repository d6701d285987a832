"""Numbers that survive: what a narrow dtype loses, and that it must be allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainers.config_file import read_settings
from trainers.dpo import train
from trainers.precision import share_lost

from train_tiny import config, pair_rows, save_base, write_config, write_rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


def test_the_share_of_updates_that_rounding_undoes() -> None:
    """bfloat16 has 8 bits: next to 1 it knows 0.99609375 and 1.0078125."""
    before = torch.tensor([1.0, 1.0, 1.0, 1.0])
    after = torch.tensor([1.0, 1.001, 1.01, 0.999])
    assert share_lost(before, after, torch.bfloat16) == (2, 3)
    assert share_lost(before, after, torch.float32) == (0, 3)


def run(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    base = save_base(folder / "base")
    rows = write_rows(folder / "rows.jsonl", pair_rows())
    data = config(folder, base, rows, lora=None, **changes)
    (outcome,) = train(read_settings(write_config(folder / "c.yml", data)), ["positive"])
    return outcome, json.loads((outcome.folder / "pv_run.json").read_text())


def test_a_small_rate_in_bfloat16_is_measured_and_said(tmp_path: Path) -> None:
    outcome, manifest = run(
        tmp_path, allow_lossy=True, base_dtype="bfloat16", dpo={"learning_rate": 1e-6}
    )
    share = manifest["precision"]["share_of_first_updates_lost"]
    assert share > 0.9
    assert outcome.notes[-1] == (
        f"warning: bfloat16 weights lose {share:.1%} of the first step's updates (allow_lossy: true)"
    )


def test_a_large_rate_loses_little(tmp_path: Path) -> None:
    _, manifest = run(tmp_path, allow_lossy=True, save_dtype="bfloat16", dpo={"learning_rate": 0.1})
    assert manifest["precision"]["share_of_first_updates_lost"] < 0.05
    folder = tmp_path / "run/positive"
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_mixed_precision_keeps_and_saves_float32(tmp_path: Path) -> None:
    outcome, manifest = run(tmp_path, dpo={"bf16": True, "learning_rate": 1e-6})
    assert manifest["hyperparameters"]["bf16"] is True
    weights = load_file(outcome.folder / "model.safetensors")
    start = load_file(tmp_path / "base/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    moved = sum(int((weights[name] != start[name]).sum()) for name in start)
    assert moved > 0.9 * sum(tensor.numel() for tensor in start.values()) / 2


def test_a_narrow_frozen_base_trains_a_float32_adapter(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows())
    data = config(tmp_path, base, rows, base_dtype="bfloat16")
    (outcome,) = train(read_settings(write_config(tmp_path / "c.yml", data)), ["positive"])
    adapter = load_file(outcome.folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    manifest = json.loads((outcome.folder / "pv_run.json").read_text())
    assert manifest["precision"] == {
        "base_dtype": "bfloat16",
        "quantization": None,
        "allow_lossy": False,
    }
