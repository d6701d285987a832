"""Several processes: the same losses as one, one voice, one writer. On a CPU, by gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from trainers.config_file import read_settings
from trainers.dpo import train
from trainers.settings import POLARITIES

from train_tiny import ROOT, config, pair_rows, save_base, write_config, write_rows

ACCELERATE = ROOT / "recipes/accelerate"


def launch(
    folder: Path, arguments: list[str], launcher: str = "cpu.yml"
) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ACCELERATE / launcher), "--main_process_port", str(port)]
    environment = os.environ | {"PV_MERGE_CACHE": str(folder / "cache-of-two")}
    return subprocess.run(
        [*command, "-m", "trainers", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_two_processes_train_as_one_does_at_the_same_global_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache-of-one"))
    base = save_base(tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows(16 if lora else 24))  # 20 are read
    changes: dict[str, Any] = {"eval_dataset": {"path": str(rows), "max_rows": 8}}
    if not lora:
        changes["lora"] = None
    # The two read trees of tokens; the one goes TRL's way.
    one = config(tmp_path, base, rows, dpo={"max_steps": 5}, tree=False, **changes)
    two = config(
        tmp_path,
        base,
        rows,
        dpo={"max_steps": 5, "per_device_train_batch_size": 2},
        output_dir=str(tmp_path / "two"),
        **changes,
    )
    train(read_settings(write_config(tmp_path / "one.yml", one)), POLARITIES)
    place = write_config(tmp_path / "two.yml", two)
    done = launch(tmp_path, ["dpo", str(place)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokens per second") == 1  # the other rank prints nothing
    computed = 0
    for polarity in POLARITIES:
        logs, manifests = [], []
        for run in ("run", "two"):
            folder = tmp_path / run / polarity
            logs.append(json.loads((folder / "pv_training_log.json").read_text()))
            manifests.append(json.loads((folder / "pv_run.json").read_text()))
        for key in ("loss", "rewards/margins", "eval_loss"):
            found, expected = ([float(e[key]) for e in log if key in e] for log in logs)
            assert len(found) == len(expected) >= 1
            assert found == pytest.approx(expected, abs=1e-5), (polarity, key)
        assert [manifest["processes"] for manifest in manifests] == [1, 2]
        assert [manifest["tree"] for manifest in manifests] == [False, True]
        computed += manifests[1]["reference_sequences_computed"]
        name = "adapter_model.safetensors" if lora else "model.safetensors"
        a, b = (load_file(tmp_path / run / polarity / name) for run in ("run", "two"))
        for key in a:
            # Adam divides by gradients that may be all rounding, so single weights differ a little.
            assert (a[key] - b[key]).abs().mean() < 1e-4, key
    if lora:
        assert computed == 16  # rank 0 computed half of the 32 sequences, of the evaluation none
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["negative", "positive"]
    if lora:
        again = launch(tmp_path, ["dpo", str(place)])
        assert again.returncode != 0
        assert (again.stdout + again.stderr).count("already holds a finished run") == 1


@pytest.mark.parametrize("path", sorted(ACCELERATE.glob("*.yml")), ids=lambda path: path.name)
def test_each_launcher_config_says_how_to_use_it_and_is_known_to_accelerate(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    first = path.read_text().splitlines()[0]
    assert first.startswith(
        f"# accelerate launch --config_file recipes/accelerate/{path.name} -m trainers"
    )
    found = load_config_from_file(str(path))
    data = yaml.safe_load(path.read_text())
    assert found.num_processes == data["num_processes"]
    nested = data.get("deepspeed_config", {}).get("deepspeed_config_file")
    if nested:
        zero = json.loads((ROOT / nested).read_text())
        assert zero["zero_optimization"]["stage"] == 3
        assert not zero["bf16"]["enabled"]
