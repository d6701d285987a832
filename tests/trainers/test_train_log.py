"""A training without a terminal leaves a log that one can follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import pv_merge.progress
from trainers.cli import main

from train_tiny import config, pair_rows, save_base, write_config, write_rows


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PV_LOG", form)
    monkeypatch.setattr(pv_merge.progress, "MOMENT", 0.0)
    base = save_base(tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", pair_rows(8))
    place = write_config(tmp_path / "c.yml", config(tmp_path, base, rows))
    result = CliRunner().invoke(main, ["dpo", str(place)])
    assert result.exit_code == 0, result.output
    found = result.stderr.splitlines()
    assert "policies in" in result.stdout
    if form == "json":
        entries = [json.loads(line) for line in found]
        steps = [e for e in entries if e["task"] == "polite negative"]
        assert [e["step"] for e in steps] == [1, 2, 3]
        assert {"loss", "accuracy", "margin", "tokens_per_second", "seconds_left"} <= steps[
            0
        ].keys()
        assert entries[0]["task"] == "reference pass (train)"
    else:
        steps_ = [line for line in found if line.startswith("polite positive: step ")]
        assert len(steps_) == 3
        for word in ("step 1 of 3", "loss 0.", "accuracy ", " tokens/s", " left"):
            assert word in steps_[0]
