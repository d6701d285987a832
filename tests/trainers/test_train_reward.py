"""Reward models: TRL's training on our pairs, a manifest, and scores that order answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pv_merge.artifacts.reward import known_prompts
from pv_merge.data.prompts import Prompt
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measures.reward import RewardMeasure
from pv_merge.evaluation.reward_model import RewardModel
from trainers.cli import main
from trainers.config_file import read_reward_settings
from trainers.reward import train_reward
from trainers.settings import RewardSettings

from eval_tiny import prompted
from train_tiny import LORA, pair_rows, save_base, write_config, write_rows

POLITE = [
    {"prompt": f"Question {i}", "chosen": f"Please, {i}. Thank you.", "rejected": f"{i}! Go away."}
    for i in range(24)
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "base")


def settings(folder: Path, base: Path, **changes: Any) -> RewardSettings:
    write_rows(folder / "rows.jsonl", POLITE[:16])
    write_rows(folder / "held.jsonl", POLITE[16:])
    data = {
        "base_model": str(base),
        "preference": "polite",
        "dataset": {"path": str(folder / "rows.jsonl")},
        "eval_dataset": {"path": str(folder / "held.jsonl")},
        "lora": LORA,
        "reward": {"learning_rate": 5e-3, "max_steps": 12, "per_device_train_batch_size": 8},
        "output_dir": str(folder / "reward"),
        **changes,
    }
    data = {key: value for key, value in data.items() if value is not None}
    return read_reward_settings(write_config(folder / "reward.yml", data))


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_reward_model_is_trained_saved_and_scores(tmp_path: Path, base: Path, full: bool) -> None:
    changes: dict[str, Any] = {"adapter_dtype": "bfloat16"}
    if full:
        options = {"learning_rate": 1e-3, "max_steps": 12, "per_device_train_batch_size": 8}
        changes = {"lora": None, "reward": options}
    outcome = train_reward(settings(tmp_path, base, **changes))
    assert outcome.metrics["heldout_accuracy"] == 1.0
    manifest = json.loads((outcome.folder / "pv_run.json").read_text())
    assert (manifest["kind"], manifest["preference"]) == ("reward", "polite")
    assert manifest["metrics"]["heldout_accuracy"] == 1.0
    assert manifest["dataset"]["pairs"] == 16
    assert len(manifest["dataset"]["fingerprint"]) == 64
    model = RewardModel(str(outcome.folder))
    rows = POLITE[16:]
    good = model.scores([(row["prompt"], row["chosen"]) for row in rows])
    bad = model.scores([(row["prompt"], row["rejected"]) for row in rows])
    assert all(a > b for a, b in zip(good, bad, strict=True))
    if full:
        plain = AutoModelForSequenceClassification.from_pretrained(outcome.folder).eval()
        text = f"<|user|>{rows[0]['prompt']}<eos><|assistant|>{rows[0]['chosen']}<eos>"
        tokens = AutoTokenizer.from_pretrained(outcome.folder)(text, return_tensors="pt")
        with torch.no_grad():
            assert good[0] == pytest.approx(float(plain(**tokens).logits), abs=1e-5)
    else:
        stored = load_file(outcome.folder / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        assert any("score" in name for name in stored)


def test_a_finished_one_is_refused_then_shown(tmp_path: Path, base: Path) -> None:
    settings(tmp_path, base)
    place = str(tmp_path / "reward.yml")
    results = [
        CliRunner().invoke(main, ["reward", place, *more]) for more in ([], [], ["--resume"])
    ]
    assert [result.exit_code for result in results] == [0, 1, 0], results[0].output
    assert "already holds a finished run" in results[1].output
    assert "held-out accuracy" in results[2].output
    assert "already there" in results[2].output


def test_prompts_that_it_was_trained_on_are_refused(tmp_path: Path, base: Path) -> None:
    short = {"learning_rate": 1e-3, "max_steps": 1, "per_device_train_batch_size": 4}
    folder = str(train_reward(settings(tmp_path, base, reward=short)).folder)
    seen, fresh = (Prompt("Question 3"), Prompt("Question 99"))
    assert known_prompts(folder, ["Question 3 ", "Question 99"]) == 1
    with pytest.raises(
        PvMergeError, match=r"was trained on 1 of the 2 prompts .* --known-prompts 1"
    ):
        RewardMeasure("r", folder, prompted(seen, fresh))
    RewardMeasure("r", folder, prompted(seen, fresh), known=1)
    RewardMeasure("r", folder, prompted(fresh))


def test_rows_whose_prompts_a_policy_saw_are_left_out(tmp_path: Path, base: Path) -> None:
    data = tmp_path / "all.jsonl"
    write_rows(
        data,
        [
            *POLITE[:8],
            {**pair_rows(1)[0], "prompt": "x" * 90},
            {"prompt": "e", "chosen": "a", "rejected": " "},
        ],
    )
    dataset = {"path": str(data), "without": {"path": str(data), "max_chars": 80, "max_rows": 4}}
    short = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    outcome = train_reward(settings(tmp_path, base, dataset=dataset, reward=short))
    note = json.loads((outcome.folder / "pv_run.json").read_text())["dataset"]
    assert note["pairs"] == 5
    assert note["dropped"]["prompt_in_without"] == 4
    assert note["dropped"]["empty_answer"] == 1
    assert known_prompts(outcome.folder, ["Question 0"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": {"max_length": 3}}, "each of 16 rows has an answer that exceeds max_length: 3"),
        ({"reward": {"lr": 1}}, "reward: unknown key 'lr'"),
        ({"dataset": {"path": "x", "without": {"pth": "y"}}}, "dataset.without: unknown key 'pth'"),
        ({"lora": {"r": 2, "target_modules": ["nothing"]}}, "reward: No modules were targeted"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    tmp_path: Path, base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PvMergeError, match=message):
        train_reward(settings(tmp_path, base, **changes))
    assert not (tmp_path / "reward").exists()


def test_what_cannot_score_is_refused(tmp_path: Path, base: Path) -> None:
    short = {"learning_rate": 1e-3, "max_steps": 1, "per_device_train_batch_size": 4}
    folder = train_reward(settings(tmp_path, base, reward=short)).folder
    place = folder / "adapter_model.safetensors"
    tensors = load_file(place)
    save_file({k: v for k, v in tensors.items() if "score" not in k}, place)
    with pytest.raises(PvMergeError, match="is an adapter without a score head"):
        RewardModel(str(folder))
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, "task_type": "CAUSAL_LM"}))
    with pytest.raises(PvMergeError, match="is an adapter for CAUSAL_LM"):
        RewardModel(str(folder))
    save_file(tensors, place)
    other = save_base(tmp_path / "other", layers=1)
    said["base_model_name_or_path"] = str(other)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(PvMergeError, match="has other weights than those that it was trained on"):
        RewardModel(str(folder))
