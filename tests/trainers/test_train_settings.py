"""Training configs: every problem at once, with what was meant."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_merge.artifacts.protection import is_protected
from pv_merge.errors import PvMergeError
from trainers.config_file import read_settings, read_sft_settings

from train_tiny import ROOT, config, write_config


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    return config(tmp_path, tmp_path / "base", tmp_path / "rows.jsonl")


def read(tmp_path: Path, data: dict[str, Any], *overrides: str) -> Any:
    return read_settings(write_config(tmp_path / "config.yml", data), overrides)


def test_every_problem_is_named_at_once(tmp_path: Path, good: dict[str, Any]) -> None:
    good["prefrence"] = good.pop("preference")
    good["dataset"]["spit"] = "train"
    good["dpo"] |= {"learning_rte": 1e-3, "output_dir": "x", "sync_ref_model": True}
    good["lora"] = {"r": 4, "lora_alfa": 8}
    good["adapter_dtype"] = "int8"
    with pytest.raises(PvMergeError) as caught:
        read(tmp_path, good)
    message = str(caught.value)
    for part in (
        "unknown key 'prefrence'; did you mean preference?",
        "dataset: unknown key 'spit'; did you mean split?",
        "dpo: unknown key 'learning_rte'; did you mean learning_rate?",
        "dpo: output_dir cannot be set; output_dir is set at the top level",
        "dpo: sync_ref_model cannot be set; the reference model is the base",
        "lora: unknown key 'lora_alfa'; did you mean lora_alpha?",
        "preference is required",
        "adapter_dtype: Input should be 'float32' or 'bfloat16', got 'int8'",
    ):
        assert part in message
    assert len(message.splitlines()) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping_patience": 2}, "early_stopping_patience needs an eval_dataset"),
        ({"dpo": {"eval_strategy": "steps"}}, "eval_strategy needs an eval_dataset"),
        ({"lora": None, "quantization": "nf4"}, "quantization: nf4 needs lora"),
        (
            {"lora": None, "base_dtype": "bfloat16"},
            "base_dtype: bfloat16 would train the weights in bfloat16, which loses .* allow_lossy: true",
        ),
        (
            {"lora": None, "save_dtype": "float16"},
            "save_dtype: float16 would save the weights in float16, which loses",
        ),
        ({"save_dtype": "bfloat16"}, "for an adapter, set adapter_dtype"),
        ({"dataset": {"path": "x", "max_rows": 0}}, "dataset.max_rows: Input should be greater"),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    data = config(tmp_path, tmp_path / "base", tmp_path / "rows.jsonl", **changes)
    with pytest.raises(PvMergeError, match=message):
        read(tmp_path, data)


def test_lossy_settings_are_read_when_allowed(tmp_path: Path, good: dict[str, Any]) -> None:
    good |= {"base_dtype": "bfloat16", "allow_lossy": True}
    del good["lora"]
    assert read(tmp_path, good).base_dtype == "bfloat16"


def test_overrides_reach_into_the_config(tmp_path: Path, good: dict[str, Any]) -> None:
    overrides = ("dpo.learning_rate=5e-7", "preference=kind", "dataset.max_rows=3", "lora=null")
    found = read(tmp_path, good, *overrides)
    assert found.dpo["learning_rate"] == 5e-7
    assert (found.preference, found.dataset.max_rows, found.lora) == ("kind", 3, None)


def test_a_number_without_a_point_is_a_number(tmp_path: Path, good: dict[str, Any]) -> None:
    """YAML 1.1 reads 5e-7 as text, and TRL would fail at the first step."""
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(good).replace("0.001", "1e-3"))
    assert read_settings(path).dpo["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dpo.beta", "expected key=value, such as dpo.learning_rate=5e-7"),
        ("preference.x=1", "preference has no keys of its own"),
        ("dpo.bta=1", r"unknown key 'bta'; did you mean beta\?"),
        ("dpo.beta=[", "not valid YAML"),
    ],
)
def test_overrides_that_cannot_be(
    tmp_path: Path, good: dict[str, Any], override: str, message: str
) -> None:
    with pytest.raises(PvMergeError, match=message):
        read(tmp_path, good, override)


def test_files_that_are_no_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    with pytest.raises(PvMergeError, match=r"config.yml: no such file"):
        read_settings(path)
    path.write_text("a: [")
    with pytest.raises(PvMergeError, match="not valid YAML"):
        read_settings(path)
    path.write_text("- a")
    with pytest.raises(PvMergeError, match="expected keys such as base_model:, got a list"):
        read_settings(path)
    with pytest.raises(PvMergeError, match="is a folder"):
        read_settings(tmp_path)


def test_a_config_for_dpo_is_not_one_for_sft(tmp_path: Path, good: dict[str, Any]) -> None:
    with pytest.raises(PvMergeError, match="unknown key 'preference'"):
        read_sft_settings(write_config(tmp_path / "config.yml", good))


def test_safety_is_protected_by_name_and_by_word() -> None:
    assert is_protected("Harmless", None)
    assert not is_protected("polite", None)
    assert is_protected("polite", True)
    assert not is_protected("harmless", False)


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, trainers.cli\n"
        "try:\n    trainers.cli.main(['dpo', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'trl', 'pydantic', 'datasets'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.rstrip().endswith("[]")
    # CPU time, which a busy machine does not stretch
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a=b", ".."])
def test_names_that_would_become_paths(tmp_path: Path, good: dict[str, Any], name: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({**good, "preference": name}))
    with pytest.raises(PvMergeError, match=r"preference: .* cannot be the name of a preference"):
        read_settings(path)
