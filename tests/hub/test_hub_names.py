"""A name on the Hub wherever a folder is accepted: base, policy and vector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from hub_client import connected, merge_folder

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.reference import HubName, is_hub_name, local_folder, parse_hub_name
from pv_merge.errors import PvMergeError
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.run import run
from pv_merge.recipe.opening import check

from hub_server import Hub
from models import perturbed, recipe, save, state, tiny


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with connected(monkeypatch, tmp_path) as found:
        yield found


def _publish(hub: Hub, name: str, folder: Path) -> None:
    hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("org/name@main", HubName("org/name", "main")),
        ("org/name@polite=-1,helpful=0.5", HubName("org/name", "polite=-1,helpful=0.5")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("./org/name", None),
        ("/org/name", None),
        ("name", None),
        ("org/sub/name", None),
        ("org/../name", None),
        ("org/name@", None),
    ],
)
def test_the_form_of_a_name(text, name):
    assert parse_hub_name(text) == name


def test_a_folder_here_counts_first(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    assert not is_hub_name("org/name")
    assert not is_hub_name("org/nme")  # a misspelt path is not looked up
    assert is_hub_name("org/nme@main") and is_hub_name("other/name")
    assert local_folder("org/nme") == Path("org/nme")


def test_extract_check_and_run_with_names(hub: Hub, tmp_path: Path):
    base = tiny()
    save(base, tmp_path / "base")
    for name, seed in (("positive", 1), ("negative", 2)):
        save(perturbed(base, seed), tmp_path / name)
    for name in ("base", "positive", "negative"):
        _publish(hub, f"alice/{name}", tmp_path / name)
    manifest = extract(
        "alice/positive@main",
        "alice/negative",
        tmp_path / "vector",
        ExtractOptions("alice/base", "polite"),
    )
    assert manifest["base"]["path"] == "alice/base"
    assert manifest["positive"]["path"] == "alice/positive@main"
    _publish(hub, "alice/vector", tmp_path / "vector")

    def merge(names: dict[str, str], output: str) -> dict[str, torch.Tensor]:
        inputs = [(names["vector"], {"preference": "polite", "polarity": "vector", "eta": 0.5})]
        path = tmp_path / f"{output}.yml"
        path.write_text(yaml.safe_dump(recipe(names["base"], inputs)))
        assert [f.text for f in check(path) if f.level == "error"] == []
        run(path, tmp_path / output)
        return state(tmp_path / output)

    there = merge({"base": "alice/base", "vector": "alice/vector@main"}, "from-hub")
    here = merge({n: str(tmp_path / n) for n in ("base", "vector")}, "from-folders")
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_a_name_that_cannot_be_had_is_one_finding(hub: Hub, tmp_path: Path):
    save(tiny(), tmp_path / "base")
    inputs = [("eve/vector", {"preference": "polite", "polarity": "vector", "eta": 0.5})]
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe(str(tmp_path / "base"), inputs)))
    errors = [finding.text for finding in check(path) if finding.level == "error"]
    assert len(errors) == 1
    assert "eve/vector: the Hub has no such repository, or the token may not see it" in errors[0]


def test_code_and_pickles_stay_on_the_hub(hub: Hub):
    files = {"model.safetensors": b"x", "modeling.py": b"x", "pytorch_model.bin": b"x"}
    hub.add("alice/mixed", files)
    assert [path.name for path in local_folder("alice/mixed").iterdir()] == ["model.safetensors"]
    with pytest.raises(PvMergeError, match=r"alice/mixed@x: the Hub has no such revision"):
        local_folder("alice/mixed@x")


def test_a_card_downloads_nothing(hub: Hub, tmp_path: Path):
    from pv_merge.hub.facts import read_facts

    hub.add("alice/base", {"model.safetensors": b"x", "README.md": b"---\nlicense: mit\n---\n"})
    folder = merge_folder(tmp_path / "merged")
    text = (folder / "mergekit_config.yml").read_text()
    (folder / "mergekit_config.yml").write_text(text.replace("./models/base", "alice/base"))
    assert read_facts(folder, "x").base.licences == []
    assert hub.requests == []
    local_folder("alice/base")
    facts = read_facts(folder, "x")
    assert (facts.base.repo, facts.base.licence and facts.base.licence.identifier) == (
        "alice/base",
        "mit",
    )


def test_training_and_evaluation_take_a_base_at_a_revision(hub: Hub, tmp_path: Path):
    from pv_merge.live.subject import load_subject
    from trainers.config_file import read_settings
    from trainers.dpo import train

    import train_tiny

    train_tiny.save_base(tmp_path / "local")
    _publish(hub, "alice/base", tmp_path / "local")
    data = train_tiny.write_rows(tmp_path / "pairs.jsonl", train_tiny.pair_rows(6))
    said = train_tiny.config(tmp_path / "run", tmp_path / "local", data)
    said["base_model"] = "alice/base@main"
    settings = read_settings(train_tiny.write_config(tmp_path / "train.yml", said))
    (outcome,) = train(settings, ["positive"])
    manifest = json.loads((outcome.folder / "pv_run.json").read_text())
    assert manifest["base_model"]["path"] == "alice/base@main"
    assert manifest["base_model"]["weights_sha256"] == weights_hash(Checkpoint(tmp_path / "local"))
    adapter = json.loads((outcome.folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "alice/base@main"
    live = load_subject("alice/base@main").model.state_dict()
    for name, weight in state(tmp_path / "local").items():
        assert torch.equal(live[name], weight)
