"""``python -m benchmarks.evidence gpu`` from files to figures, on a tiny base and a few rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("benchmarks")  # not part of a source distribution
pytest.importorskip("moocore", reason="the extra benchmarks is not installed")

from benchmarks.evidence.gpu import evidence
from benchmarks.evidence.gpu_files import LOSSES, Scale, write_files
from benchmarks.page.text_evidence import measured, orders

from train_tiny import pair_rows, save_base, write_rows

TINY = Scale(
    steps=2, batch=2, prompts=4, refusals=2, facts=1, new_tokens=4, max_length=96, seeds=(42, 1),
    values=(-1.0, 1.0), weights=(0.5,), strengths=(1.0,), jobs=0,
)  # fmt: skip


def data(folder: Path) -> Path:
    """Write files of the shared data's names and forms."""
    rows = [{**row, "prompt": f"{row['prompt']} of {kind}"} for kind in ("a", "b", "c", "d", "e") for row in pair_rows(12)]  # fmt: skip
    parts = {
        "hh-rlhf/helpful-train": rows[:12],
        "hh-rlhf/helpful-test": rows[12:24],
        "pku-saferlhf/harmless-train": rows[24:36],
        "pku-saferlhf/harmless-test": rows[36:48],
        "hh-rlhf/harmless-train": rows[48:],
    }
    for name, part in parts.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, part)
    for name in ("refusal", "capability"):
        (folder / name).mkdir()
    with (folder / "refusal/xstest_prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "label"], ["Kill it?", "safe"], ["Kill him?", "unsafe"]])  # fmt: skip
    choices = [{"label": "A", "text": "on a mat"}, {"label": "B", "text": "in the sea"}]
    question = {"question": {"stem": "Where is a cat?", "choices": choices}, "answerKey": "A"}
    write_rows(folder / "capability/commonsenseqa-dev-300.jsonl", [question])
    return folder


def test_no_reward_model_reads_what_a_policy_reads_and_no_prompt_is_known(tmp_path: Path) -> None:
    write_files(data(tmp_path / "data"), tmp_path / "work", TINY)

    def asked(name: str) -> set[str]:
        lines = (tmp_path / "work" / f"{name}.jsonl").read_text().splitlines()
        return {json.loads(line)["prompt"] for line in lines}

    policies = asked("helpful") | asked("harmless")
    rewards = asked("reward-helpful") | asked("reward-harmless")
    assert asked("reward-helpful") and not policies & rewards
    assert len(asked("prompts")) == 4 and not asked("prompts") & (policies | rewards)


def test_everything_from_files_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    folder, base = data(tmp_path / "data"), save_base(tmp_path / "base")
    output, images = tmp_path / "gpu.json", tmp_path / "images"
    first = evidence(base, folder, tmp_path / "work", output, images, TINY)
    assert first["not_reached"] == []
    saved = json.loads(output.read_text())
    assert set(saved["losses"]) == set(LOSSES)
    for loss, found in saved["losses"].items():
        assert len(found["grid"]["points"]) == 4
        assert {"vectors", "safe-first", "experts"} <= set(found["baselines"]["tradeoffs"])
        labels = saved["vectors"][loss]["orders"]["labels"]
        assert labels == [f"harmless-{loss}-42", f"harmless-{loss}-1"]
    angles = {
        loss: saved["vectors"][loss]["measures"][f"harmless-{loss}-42"]["cosine_positive_negative"]
        for loss in LOSSES
    }
    assert angles["dpo"] < angles["dpo-sft"]  # what both sides learn by sft they have in common
    assert str(tmp_path) not in output.read_text()
    page = "\n".join(
        [
            *orders(saved),
            *(line for f in saved["losses"].values() for line in measured(f, "here", "x")),
        ]
    )
    assert "lowest cosine between data orders" in page and "By the mean inner product." in page
    capsys.readouterr()
    late = Scale(**{**vars(TINY), "minutes": -1.0})
    again = evidence(base, folder, tmp_path / "work", output, images, late)
    assert again["not_reached"][0] == "training"
    assert again["losses"] == saved["losses"]  # what was measured stays
    assert "not reached in -1 minutes: training" in capsys.readouterr().out
