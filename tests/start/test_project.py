"""``pv-merge init`` and ``pv-merge env``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.recipe.reading import read_recipe
from trainers.config_file import read_settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_preference(here: Path) -> None:
    result = CliRunner().invoke(main, ["init", "brave", "--base", "./models/own"])
    assert result.exit_code == 0, result.output
    found = sorted(path.name for path in (here / "brave").iterdir())
    assert found == ["merge.yml", "pairs.jsonl", "train.yml"]
    lines = result.output.splitlines()
    row = next(line for line in lines if line.lstrip().startswith("{"))
    assert set(json.loads(row)) == {"prompt", "chosen", "rejected"}
    settings = read_settings("brave/train.yml")
    assert (settings.preference, settings.base_model) == ("brave", "./models/own")
    recipe = read_recipe("brave/merge.yml")
    assert recipe.etas == {"brave": 1.0} and recipe.base_model == "./models/own"
    commands = [line[2:].split() for line in lines if line.startswith("$ ")]
    assert commands[0] == ["pv-train", "dpo", "brave/train.yml"]
    assert commands[1][2] == f"{settings.output_dir}/positive"
    assert commands[1][-1] == recipe.inputs[0].model
    (here / "brave" / "pairs.jsonl").write_text(f"{row.strip()}\n")
    assert read_settings("brave/train.yml").dataset.path == "./brave/pairs.jsonl"


def test_nothing_is_overwritten(here: Path) -> None:
    assert CliRunner().invoke(main, ["init", "brave"]).exit_code == 0
    (here / "brave" / "pairs.jsonl").write_text("mine")
    result = CliRunner().invoke(main, ["init", "brave"])
    assert result.exit_code == 1 and "never overwritten" in result.output
    assert (here / "brave" / "pairs.jsonl").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "two words", "../up", "9lives", "a" * 65, "naïve"])
def test_names_that_a_recipe_could_not_carry(here: Path, name: str) -> None:
    result = CliRunner().invoke(main, ["init", name])
    assert result.exit_code == 1 and "is named in letters, digits" in result.output
    assert list(here.iterdir()) == []


def test_the_settings_are_those_of_the_quickstart(here: Path) -> None:
    CliRunner().invoke(main, ["init", "brave"])
    own = yaml.safe_load((here / "brave" / "train.yml").read_text())
    shipped = Path(__file__).parents[2] / "recipes" / "quickstart" / "train.yml"
    wanted = yaml.safe_load(shipped.read_text())
    assert own["dpo"] == wanted["dpo"] and own["lora"] == wanted["lora"]


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    result = CliRunner().invoke(main, ["env"])
    assert result.exit_code == 0, result.output
    assert "torch.backends: found; mergekit knows preference_vector" in result.output
    assert "device:   CPU, " in result.output and "HF_HUB_OFFLINE=1" in result.output
    assert "hf_x" not in result.output and str(Path.home()) not in result.output.split()
