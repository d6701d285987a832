"""Folders of this machine do not leave it: cards, manifests, recipes, results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_client import connected, merge_folder

from pv_merge.errors import PvMergeError
from pv_merge.hub.machine_paths import shown_command, shown_path, shown_text
from pv_merge.hub.pull import pull
from pv_merge.hub.push import push
from pv_merge.hub.push_plan import PushOptions, make_plan


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("./runs/polite", "./runs/polite"),
        ("org/name@v1", "org/name@v1"),
        ("/srv/secret/base", "base"),
        ("~/secret/base", "base"),
        ("C:\\secret\\base", "base"),
        ("\\\\host\\secret\\base", "base"),
        ("file:///srv/secret/base", "base"),
        ("/srv/secret/base+/srv/secret/lora", "base+lora"),
        ("org/base+/srv/secret/lora", "org/base+lora"),
    ],
)
def test_a_path_is_shown_by_its_name(path: str, shown: str):
    assert shown_path(path) == shown


def test_a_command_is_shown_without_folders():
    command = (
        "pv-merge evaluate '/srv/my secret/r.yml' --pairs polite=/srv/secret/p.jsonl -o ./o.json"
    )
    assert shown_command(command) == "pv-merge evaluate r.yml --pairs polite=p.jsonl -o ./o.json"
    assert "secret" not in shown_command("pv-merge run '/srv/secret/x")  # a quote is missing


def test_a_recipe_is_shown_without_folders():
    text = "# pv-merge run /srv/secret/r.yml /srv/secret/out\nbase_model: /srv/my secret/base\n"
    assert shown_text(text) == "# pv-merge run r.yml out\nbase_model: base\n"
    kept = "a: https://example.org/x/y\nb: ./a/b\nc: org/name\nd: 1/2\n"
    assert shown_text(kept) == kept


def _with_paths(tmp_path: Path) -> Path:
    folder = merge_folder(tmp_path / "merged")
    recipe = folder / "mergekit_config.yml"
    recipe.write_text(recipe.read_text().replace("./models/base", "/srv/secret/base"))
    config = {"model_type": "llama", "_name_or_path": "/srv/secret/base", "n": 1}
    (folder / "config.json").write_text(json.dumps(config))
    figure = {"value": 1.0, "low": 0.0, "high": 2.0, "n": 9}
    results = {"labels": {"polite": "x"}, "figures": {"polite": figure}, "eta": {"polite": 1.0}}
    results |= {"command": "pv-merge evaluate /srv/secret/r.yml", "recipe": "/srv/secret/r.yml"}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_what_arrives_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch):
    folder = _with_paths(tmp_path)
    told: list[str] = []
    with connected(monkeypatch, tmp_path) as hub:
        push(folder, "alice/polite", told=told.append)
        sent = hub.repos["alice/polite"].files("main") or {}
        assert not any(b"secret" in file.content for file in sent.values())
        back = pull("alice/polite", tmp_path / "back")
    assert json.loads((back / "config.json").read_text())["_name_or_path"] == "base"
    assert "base_model: base\n" in (back / "mergekit_config.yml").read_text()
    assert b"secret" in (folder / "config.json").read_bytes()  # what is here is left alone
    named = [line.split(":")[0] for line in told if "names folders of this machine" in line]
    assert named == ["config.json", "mergekit_config.yml", "results.json"]
    assert not any("secret" in line for line in told)


def test_a_text_that_names_one_is_refused_unless_it_is_asked_for(tmp_path: Path):
    folder = _with_paths(tmp_path)
    (folder / "notes.txt").write_text("made in\n/home/me/models\n")
    with pytest.raises(PvMergeError, match=r"notes.txt: line 2 names a folder of this machine"):
        make_plan(folder, "alice/polite", PushOptions())
    plan = make_plan(folder, "alice/polite", PushOptions(include=("notes.txt", "config.json")))
    assert "config.json" not in plan.rewritten and "mergekit_config.yml" in plan.rewritten


def test_a_tokenizers_words_are_no_folders(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    words = json.dumps({"model": {"vocab": {"/home/user/x": 1, "/tmp/a/b": 2}}})
    (folder / "tokenizer.json").write_text(words)
    plan = make_plan(folder, "alice/polite", PushOptions())
    assert "tokenizer.json" in plan.files and plan.rewritten == {}
