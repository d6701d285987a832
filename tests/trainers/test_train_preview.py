"""What one sees: the preview, the estimate, the curves, the closing table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from trainers.cli import main
from trainers.config_file import read_settings
from trainers.dry_run import estimate
from trainers.plot import draw
from trainers.preview import preview

from train_tiny import config, pair_rows, save_base, write_config, write_rows


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    base = save_base(tmp_path / "base")
    long = {"prompt": "x" * 90, "chosen": "a" * 20, "rejected": "b"}
    filled = {"prompt": "x" * 120, "chosen": "a", "rejected": "b"}
    rows = write_rows(tmp_path / "rows.jsonl", [*pair_rows(8), long, filled])
    write_config(tmp_path / "config.yml", config(tmp_path, base, rows))
    return tmp_path


def test_preview_shows_the_template_the_swap_and_the_tokens(place: Path) -> None:
    found = preview(read_settings(place / "config.yml"))
    assert found.rows.keys() == {"positive", "negative"}
    assert all(len(rows) == 3 for rows in found.rows.values())
    first, swapped = found.rows["positive"][0], found.rows["negative"][0]
    assert first.prompt == "<|user|>Question 0<eos><|assistant|>"
    assert first.chosen == "Please, it is 0.<eos>" == swapped.rejected
    assert first.tokens == (13, 17, 19)  # a token a byte, and one for each mark
    assert swapped.tokens == (13, 19, 17)
    assert (found.kept, found.truncated) == (9, 1)
    assert found.dropped["prompt fills max_length"] == 1


def test_the_preview_command_trains_nothing(place: Path) -> None:
    done = CliRunner().invoke(main, ["preview", str(place / "config.yml")])
    assert done.exit_code == 0, done.output
    assert "polite positive" in done.output
    assert "polite negative" in done.output
    assert "9 pairs" in done.output
    assert "left out: 1 prompt fills max_length; 11.1% cut at max_length 96" in done.output
    assert not (place / "run").exists()


def test_the_estimate_counts_and_measures(place: Path) -> None:
    found = estimate(
        read_settings(place / "config.yml", ("dpo.max_steps=-1", "dpo.num_train_epochs=2"))
    )
    # 9 pairs twice in batches of 4, the last one of an epoch smaller
    assert found.steps == 6
    rank_4 = 4 * 2 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)  # q, o; k, v; gate, up, down
    assert found.trainable == rank_4
    assert found.training_bytes == 12 * rank_4
    assert found.weight_bytes == 4 * found.parameters
    assert found.step_seconds > 0
    assert found.hours > 2 * 6 * found.step_seconds / 3600
    assert not (place / "run").exists()
    assert not (place / "cache/reference").exists()


def test_the_whole_command_and_its_table(place: Path) -> None:
    arguments = ["dpo", str(place / "config.yml"), "-o", "dpo.max_steps=2"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    for part in ("accuracy", "margin", "tokens per second", "left out: 1 prompt fills max length"):
        assert part in done.output
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert again.output.startswith("Error: ")
    assert len(again.output.strip().splitlines()) == 1
    resumed = CliRunner().invoke(main, [*arguments, "--resume"])
    assert "(already there)" in resumed.output


def test_pushing_says_at_once_if_it_cannot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["dpo", str(place / "config.yml"), "--push-to-hub"]
    done = CliRunner().invoke(main, [*arguments, "a/b/c"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: a/b/c")
    monkeypatch.setattr("trainers.publish.find_spec", lambda name: None)
    done = CliRunner().invoke(main, [*arguments, "a/b"])
    assert done.exit_code == 1
    assert "--push-to-hub needs pv_merge.hub.push" in done.output
    assert not (place / "run").exists()


def test_pushing_is_left_to_pv_merge_push(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pv_merge.hub.push

    pushed = []

    def push(folder: Path, repo: str, told: object = None) -> str:
        pushed.append((folder.name, repo))
        return f"https://hub/{repo}"

    monkeypatch.setattr(pv_merge.hub.push, "push", push)
    arguments = ["dpo", str(place / "config.yml"), "-o", "dpo.max_steps=1", "--push-to-hub", "a/b"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert pushed == [("positive", "a/b-positive"), ("negative", "a/b-negative")]
    assert "https://hub/a/b-negative" in done.output


def test_curves_of_a_log_with_evaluations(tmp_path: Path) -> None:
    log = [
        {"step": i, "loss": 0.7 - i / 10, "rewards/accuracies": 0.5, "rewards/margins": i / 5}
        for i in range(1, 5)
    ]
    log.append({"step": 4, "eval_loss": 0.5, "eval_rewards/margins": 0.3})
    draw(log, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    draw([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
