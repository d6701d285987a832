"""What is refused before anything is sent, by name, all at once."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_client import connected, merge_folder

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.hub.guards import token_in
from pv_merge.hub.push_plan import PushOptions, make_plan

SECRET = "hf_" + "AbCdEfGhIj" * 4


def _write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


REFUSED = [
    ("pytorch_model.bin", b"anything", "is a pickle, which runs code"),
    ("weights", pickle.dumps({"a": 1}), "is a pickle, which runs code"),
    (".env", b"A=1\n", "is a file that usually holds secrets"),
    ("conf/.env.local", b"A=1\n", "is a file that usually holds secrets"),
    ("optimizer.pt", b"x", "is state of the training"),
    ("training_args.bin", b"x", "is state of the training"),
    ("rng_state_0.pth", b"x", "is state of the training"),
    ("optimizer.safetensors", b"x", "is state of the training"),
    ("global_step40/mp_rank_00.safetensors", b"x", "is state of the optimizer"),
    ("modeling_mine.py", b"pass\n", "is code that whoever loads the model"),
    ("run.log", f"a\nkey {SECRET}\n".encode(), "line 2 has what looks like a Hugging Face token"),
    ("deploy.json", b'{"api_key": "0123456789abcdef"}', "line 1 has what looks like a password"),
    ("id.txt", b"-----BEGIN RSA PRIVATE KEY-----", "line 1 has what looks like a private key"),
]


@pytest.mark.parametrize(("name", "data", "reason"), REFUSED)
def test_refused_by_name(tmp_path: Path, name, data, reason):
    folder = merge_folder(tmp_path / "merged")
    _write(folder, name, data)
    with pytest.raises(PvMergeError) as error:
        make_plan(folder, "alice/polite", PushOptions())
    assert f"{folder}: {name}: {reason}" in error.value.message
    assert SECRET not in error.value.message
    plan = make_plan(folder, "alice/polite", PushOptions(include=(name,)))
    assert name in plan.files


def test_everything_is_said_at_once(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    for name, data, _ in REFUSED:
        _write(folder, name, data)
    with pytest.raises(PvMergeError) as error:
        make_plan(folder, "alice/polite", PushOptions(include=("optimizer.pt",)))
    assert error.value.message.count("--include") == len(REFUSED) - 1


def test_a_symlink_that_leaves_the_folder(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    (tmp_path / "private.txt").write_text("mine")
    (tmp_path / "drawer").mkdir()
    (folder / "notes.txt").symlink_to(tmp_path / "private.txt")
    (folder / "drawer").symlink_to(tmp_path / "drawer")
    (folder / "same.json").symlink_to("config.json")
    with pytest.raises(PvMergeError) as error:
        make_plan(folder, "alice/polite", PushOptions())
    assert "notes.txt: is a symlink that leaves the folder" in error.value.message
    assert "drawer: is a symlink that leaves the folder" in error.value.message
    assert "same.json" not in error.value.message


def test_a_pickle_in_a_zip_and_a_pipe(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    with zipfile.ZipFile(folder / "state.dat", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    os.mkfifo(folder / "pipe")
    with pytest.raises(PvMergeError, match=r"pipe: is not an ordinary file") as error:
        make_plan(folder, "alice/polite", PushOptions())
    assert "state.dat: is a pickle" in error.value.message


def test_code_of_the_base_is_no_surprise(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = merge_folder(tmp_path / "merged")
    base = tmp_path / "models/base"
    _write(base, "modeling_base.py", b"pass\n")
    _write(base, "config.json", json.dumps({"auto_map": {"AutoModel": "modeling_base.M"}}).encode())
    _write(folder, "modeling_base.py", b"pass\n")
    _write(folder, "config.json", (base / "config.json").read_bytes())
    assert "modeling_base.py" in make_plan(folder, "alice/polite", PushOptions()).files
    _write(folder, "modeling_base.py", b"import os\n")
    _write(folder, "config.json", json.dumps({"auto_map": {"AutoModel": "eve/x--m.M"}}).encode())
    with pytest.raises(PvMergeError) as error:
        make_plan(folder, "alice/polite", PushOptions())
    assert "modeling_base.py: is code" in error.value.message
    assert "config.json: its auto_map loads code (AutoModel: eve/x--m.M)" in error.value.message


def test_a_tokenizer_is_no_secret(tmp_path: Path):
    words = {f"Ġ{a}{b}sk-{c}": 1 for a in "abc" for b in "hf_xyz" for c in "key_token"}
    assert token_in(json.dumps({"model": {"vocab": words}}).encode()) is None


def test_a_token_in_notes_or_recipe_is_not_published(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    notes = tmp_path / "notes.md"
    notes.write_text(f"use {SECRET}")
    plan = make_plan(folder, "alice/polite", PushOptions(notes=notes))
    with pytest.raises(PvMergeError, match=r"the card: line \d+ has what looks like"):
        plan.card()


@pytest.mark.parametrize("eta", [-0.5, 0.5])
def test_a_negative_protected_preference_needs_the_word(tmp_path: Path, eta: float):
    folder = merge_folder(tmp_path / "merged", eta, "harmless")
    arguments = ["push", str(folder), "alice/x", "--dry-run"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == (1 if eta < 0 else 0)
    if eta < 0:
        assert "negative eta on the protected preference harmless" in result.output
        result = CliRunner().invoke(main, [*arguments, "--allow-protected-negative"])
        assert result.exit_code == 0
    assert ("[!WARNING]" in result.output) == (eta < 0)


def test_a_policy_trained_against_a_protected_preference(tmp_path: Path):
    folder = tmp_path / "policy"
    manifest = {"kind": "policy", "preference": "safe", "polarity": "negative"}
    _write(folder, "pv_run.json", json.dumps(manifest).encode())
    with pytest.raises(
        PvMergeError, match="a policy trained against the protected preference safe"
    ):
        make_plan(folder, "alice/x", PushOptions())


def test_a_folder_of_something_else(tmp_path: Path):
    _write(tmp_path / "x", "config.json", b"{}")
    with pytest.raises(PvMergeError, match=r"holds no mergekit_config.yml, preference_vector.json"):
        make_plan(tmp_path / "x", "alice/x", PushOptions())


def test_an_include_of_nothing(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    with pytest.raises(
        PvMergeError, match=r"--include confg.json: no such file in the folder; did"
    ):
        make_plan(folder, "alice/x", PushOptions(include=("confg.json",)))


def test_other_tools_folders_are_left_out(tmp_path: Path, monkeypatch):
    folder = merge_folder(tmp_path / "merged")
    for name in (".git/config", ".cache/huggingface/x", "__pycache__/x.pyc"):
        _write(folder, name, b"x")
    plan = make_plan(folder, "alice/x", PushOptions())
    assert set(plan.files) == {
        "config.json", "mergekit_config.yml", "model.safetensors", "pv_merge_report.json",
    }  # fmt: skip
    assert ".git" in plan.left_out


def test_nothing_is_asked_of_the_hub_before_the_guards(tmp_path: Path, monkeypatch):
    with connected(monkeypatch, tmp_path) as hub:
        folder = merge_folder(tmp_path / "merged")
        _write(folder, "optimizer.pt", b"x")
        result = CliRunner().invoke(main, ["push", str(folder), "alice/x"])
        assert result.exit_code == 1 and hub.requests == []
