"""``pv-merge ui --space``: a folder that a Space can be made of, or one line why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import SpaceCard

pytest.importorskip("gradio", reason="the extra ui is not installed")

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.live.chat.engine import live_engine
from pv_merge.recipe.reading import read_recipe
from pv_merge.ui.space import write_space

from models import save
from ui_tiny import make_recipe


def test_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_recipe(tmp_path)
    out = tmp_path / "space"
    result = CliRunner().invoke(main, ["ui", str(path), "--space", str(out), "--base-model", "a/b"])
    assert result.exit_code == 0, result.output
    card = SpaceCard.load(out / "README.md")
    assert card.data.sdk == "gradio" and card.data.app_file == "app.py"
    assert card.data.to_dict()["models"] == ["a/b"]
    compile((out / "app.py").read_text(), "app.py", "exec")
    assert (out / "requirements.txt").read_text().startswith("pv-merge[ui]==")
    written = read_recipe(out / "recipe.yml")
    assert written.base_model == "a/b" and written.etas == read_recipe(path).etas
    assert all(item.model.startswith("./vectors/") for item in written.inputs)
    # with a base that is here, it runs in its own folder
    text = (out / "recipe.yml").read_text()
    (out / "recipe.yml").write_text(text.replace("a/b", str(tmp_path / "base")))
    monkeypatch.chdir(out)
    with live_engine("recipe.yml") as engine:
        assert engine.together
    assert str(tmp_path) not in "".join(p.read_text() for p in out.glob("*.md"))
    again = CliRunner().invoke(main, ["ui", str(path), "--space", str(out)])
    assert again.exit_code == 1 and len(again.output.strip().splitlines()) == 1


def test_a_base_that_fetch_makes_is_fetched_there(tmp_path: Path) -> None:
    path = make_recipe(tmp_path)
    note = {"model": "smollm2-135m-instruct", "origin": "pypi", "licence": "Apache-2.0"}
    (tmp_path / "base" / "pv_source.json").write_text(json.dumps(note))
    write_space(path, tmp_path / "space")
    app = (tmp_path / "space" / "app.py").read_text()
    assert "FETCH = " in app and "'pv-merge fetch smollm2-135m-instruct'" in app


def test_what_a_space_could_not_have(tmp_path: Path) -> None:
    path = make_recipe(tmp_path)
    with pytest.raises(PvMergeError, match="lies only here, so a Space could not load it"):
        write_space(path, tmp_path / "space")
    document = yaml.safe_load(path.read_text())
    from models import load

    dense = save(load(tmp_path / "base"), tmp_path / "dense")
    document["models"][0]["model"] = dense
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(PvMergeError, match="is no adapter, and too large"):
        write_space(path, tmp_path / "space", "a/b")
    assert not (tmp_path / "space").exists()
