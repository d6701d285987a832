"""``run`` writes the card that ``push`` writes: one template, and only the place differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.hub.push_plan import PushOptions, make_plan

from models import perturbed, recipe, save, tiny


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, two policies, and a recipe for them."""
    monkeypatch.chdir(tmp_path)
    base = tiny()
    save(base, tmp_path / "models/base")
    inputs = []
    for index, polarity in enumerate(("positive", "negative")):
        save(perturbed(base, index + 1, 0.01), tmp_path / f"runs/{polarity}")
        inputs.append(
            (f"./runs/{polarity}", {"preference": "polite", "polarity": polarity, "eta": 0.5})
        )
    data = recipe("./models/base", inputs)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(data))
    return tmp_path


def test_run_writes_the_card_that_push_writes(here: Path):
    result = CliRunner().invoke(main, ["run", "recipe.yml", "merged"])
    assert result.exit_code == 0, result.output
    own = (here / "merged" / "README.md").read_text()
    plan = make_plan(here / "merged", "alice/merged", PushOptions())
    sent = plan.card()
    assert (
        own.replace("./merged", "alice/merged").split("$ pv-merge")[0]
        == (sent.split("$ pv-merge")[0])
    )
    assert own.split("With `./models/base`")[1] == sent.split("With `./models/base`")[1]
    assert 'from_pretrained("./merged")' in own
    assert "$ pv-merge run ./merged/mergekit_config.yml ./merged" in own
    assert str(here) not in own


def test_a_grid_has_a_card_for_each_point(here: Path):
    result = CliRunner().invoke(main, ["run", "recipe.yml", "grid", "--eta", "polite=-1,0.5"])
    assert result.exit_code == 0, result.output
    for name, eta in (("polite=-1", "-1"), ("polite=0.5", "+0.5")):
        card = (here / "grid" / name / "README.md").read_text()
        assert f"# {name}\n" in card and f"| polite | {eta} |" in card


def test_a_merge_is_not_lost_for_a_card_that_cannot_be_written(here: Path, monkeypatch):
    from pv_merge.errors import PvMergeError
    from pv_merge.hub import merge

    def failing(folder: Path, name: str) -> None:
        raise PvMergeError(f"{folder}: something of an input cannot be read")

    monkeypatch.setattr(merge, "write_card", failing)
    result = CliRunner().invoke(main, ["run", "recipe.yml", "merged"])
    assert result.exit_code == 0 and "no card: " in result.output
    assert (here / "merged" / "model.safetensors").exists()


def test_a_card_needs_no_torch():
    code = "import sys, pv_merge.hub.card.card; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
