"""Hostile names, states and tokens around push and pull; nothing of a model folder is run."""

from __future__ import annotations

import ast
import json
import logging
import threading
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from hub_client import connected, content, merge_folder
from hub_store import WRITE_TOKEN

import pv_merge
import trainers
from pv_merge.artifacts.network import explain, quiet_client, redacted
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.hub.collection import collect
from pv_merge.hub.pull import pull
from pv_merge.hub.push import push
from pv_merge.hub.push_plan import PushOptions, make_plan

TOKEN = "hf_" + "Q" * 34
PLAIN = "org-token-of-another-form-0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://user:{PLAIN}@example.org/x failed",
        f"https://{TOKEN}@example.org",
        f"GET https://example.org/x?X-Amz-Signature={PLAIN}&a=1",
        f"headers: {{'authorization': 'Bearer {PLAIN}'}}",
        f"proxy http://me:{TOKEN}@127.0.0.1:3128 refused",
        f"the token {TOKEN} was given",
    ],
)
def test_no_token_in_a_message(text: str, caplog, monkeypatch):
    assert TOKEN not in redacted(text) and PLAIN not in redacted(text)
    said = explain(RuntimeError(text), "alice/x").message
    assert TOKEN not in said and PLAIN not in said
    logger = logging.getLogger("huggingface_hub.utils._http")
    with quiet_client(), caplog.at_level(logging.DEBUG):
        logger.warning("Retrying: %s", text)
    assert TOKEN not in caplog.text and PLAIN not in caplog.text
    assert "Retrying" in caplog.text


def test_the_token_in_use_is_not_shown_whatever_its_form(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PLAIN)
    assert PLAIN not in redacted(f"the server echoed {PLAIN}")


def test_a_token_in_an_exception_of_the_client(tmp_path: Path, monkeypatch):
    def failing(*arguments: object, **options: object) -> None:
        raise RuntimeError(f"https://me:{WRITE_TOKEN}@proxy refused, Bearer {WRITE_TOKEN}")

    with connected(monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.HfApi.create_commit", failing)
        result = CliRunner().invoke(
            main, ["push", str(merge_folder(tmp_path / "merged")), "alice/polite"]
        )
    assert result.exit_code == 1
    assert WRITE_TOKEN not in result.output and "refused" in result.output


@pytest.mark.parametrize(
    "name",
    [
        "polite=1 2",
        "polite=1\n# x",
        "polite=1](javascript:alert(1))",
        "polite=1..2",
        "polite=1.lock",
        "polite=`x`",
        "-polite=1",
        "polite=1\x1b[31m",
    ],
)
def test_a_point_of_a_hostile_name_is_refused(tmp_path: Path, name: str):
    merge_folder(tmp_path / "grid" / name)
    with pytest.raises(PvMergeError, match="cannot be the name of a revision") as error:
        collect(tmp_path / "grid", "alice/polite", PushOptions())
    assert "\n" not in error.value.message and "\x1b" not in error.value.message


@pytest.mark.parametrize("revision", ["a b", "../x", "", "x.lock", "x/", "--force"])
def test_a_revision_of_a_hostile_name_is_refused(tmp_path: Path, revision: str):
    folder = merge_folder(tmp_path / "merged")
    with pytest.raises(PvMergeError, match="cannot be the name of a revision"):
        make_plan(folder, "alice/polite", PushOptions(revision=revision))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("polite=0.5", "is called polite=0.5, but that is not its recipe's eta"),
        ("rude=1", "its recipe has no preference rude"),
    ],
)
def test_a_point_that_is_not_what_its_name_says(tmp_path: Path, name: str, line: str):
    merge_folder(tmp_path / "grid" / name)
    with pytest.raises(PvMergeError, match=line):
        collect(tmp_path / "grid", "alice/polite", PushOptions())


def test_two_pushes_of_one_folder_at_once(tmp_path: Path, monkeypatch):
    """One makes the repository; the other is told so, or commits the same on top. Nothing is half."""
    folder = merge_folder(tmp_path / "merged")
    before = content(folder, ())
    said: list[str] = []

    def once() -> None:
        try:
            push(folder, "alice/polite", PushOptions(exist_ok=True))
        except PvMergeError as error:
            said.append(error.message)

    with connected(monkeypatch, tmp_path) as hub:
        threads = [threading.Thread(target=once) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = hub.repos["alice/polite"]
        files = found.files("main") or {}
        assert set(content(folder)) | {"README.md"} == set(files) - {".gitattributes"}
        assert 1 <= len(found.messages) <= 2
    assert all("exists already" in line or "came in between" in line for line in said)
    assert len(said) < 2 and content(folder, ()) == before


def test_a_folder_that_changes_during_a_push_is_not_published(tmp_path: Path, monkeypatch):
    folder = merge_folder(tmp_path / "merged")
    with connected(monkeypatch, tmp_path) as hub:
        from pv_merge.hub import push as pushing

        made = pushing.open_remote

        def meanwhile(*arguments: object) -> object:
            (folder / "config.json").write_text('{"model_type": "other"}')
            return made(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(pushing, "open_remote", meanwhile)
        with pytest.raises(PvMergeError, match=r"config.json: changed since this push began"):
            push(folder, "alice/polite")
        assert not any(repo.messages for repo in hub.repos.values())


def test_a_file_of_a_hostile_name_is_refused(tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    (folder / "a\n\x1b[2Jb.txt").write_text("x")
    with pytest.raises(PvMergeError, match="control characters in its name") as error:
        make_plan(folder, "alice/x", PushOptions())
    assert "\x1b" not in error.value.message.split("(--include")[0]


@pytest.mark.parametrize("state", ["file", "full", "dangling", "under a file", "long"])
def test_pull_into_what_is_no_new_folder(tmp_path: Path, monkeypatch, state: str):
    target = tmp_path / "out"
    if state == "file":
        target.write_text("mine")
    elif state == "full":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif state == "dangling":
        target.symlink_to(tmp_path / "nowhere")
    elif state == "under a file":
        (tmp_path / "file").write_text("mine")
        target = tmp_path / "file" / "out"
    else:
        target = tmp_path / ("n" * 300)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with connected(monkeypatch, tmp_path) as hub:
        hub.add("alice/x", {"model.safetensors": b"w", "config.json": b"{}"})
        result = CliRunner().invoke(main, ["pull", "alice/x", "-o", str(target)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    after = sorted(str(path) for path in tmp_path.rglob("*") if "/hub" not in str(path))
    assert after == before


def test_pull_of_names_that_climb_writes_nothing_outside(tmp_path: Path, monkeypatch):
    files = {"model.safetensors": b"w", "../../../evil.json": b"{}", "/evil.json": b"{}"}
    with connected(monkeypatch, tmp_path) as hub:
        hub.add("alice/x", files)
        result = CliRunner().invoke(main, ["pull", "alice/x", "-o", str(tmp_path / "a/b/c/out")])
    assert isinstance(result.exception, SystemExit | None)
    assert not [p for p in tmp_path.rglob("evil.json") if "hub" not in p.parts]
    assert not Path("/evil.json").exists() and not (tmp_path / "a/evil.json").exists()


def test_code_of_a_model_folder_is_not_run(tmp_path: Path, monkeypatch):
    """Pushed with --include, pulled with --remote-code, and never imported."""
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').write('ran')\n"
    folder = merge_folder(tmp_path / "merged")
    (folder / "modeling.py").write_text(code)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling.M"}}))
    with connected(monkeypatch, tmp_path):
        push(folder, "alice/x", PushOptions(include=("modeling.py", "config.json")))
        back = pull("alice/x", tmp_path / "back", remote_code=True)
        make_plan(back, "alice/y", PushOptions(include=("modeling.py", "config.json")))
    assert (back / "modeling.py").read_text() == code
    assert not canary.exists()


@pytest.mark.parametrize("package", ["evaluation", "hub", "integrations", "live", "merging"])
def test_no_call_trusts_remote_code(package: str):
    """No keyword ``trust_remote_code`` is anything but False."""
    for path in (Path(pv_merge.__file__).parent / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                safe = isinstance(node.value, ast.Constant) and node.value.value is False
                assert safe, f"{path}:{node.value.lineno}"


@pytest.mark.parametrize("package", [pv_merge, trainers], ids=lambda package: package.__name__)
def test_no_model_is_loaded_from_a_pickle(package: ModuleType):
    """Every model that transformers loads is loaded from safetensors, or from a GGUF of ours."""
    found = 0
    for path in Path(str(package.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            home = getattr(node.func.value, "id", "")
            if node.func.attr == "from_pretrained" and (
                home.startswith("AutoModel") or home == "kind"
            ):
                said = {word.arg: word.value for word in node.keywords}
                assert getattr(said.get("use_safetensors"), "value", None) is True, path
                assert getattr(said.get("trust_remote_code"), "value", None) is False, path
                found += 1
    assert found >= 2


def test_a_reward_model_on_the_hub_is_fetched_without_its_pickles(tmp_path: Path, monkeypatch):
    from pv_merge.evaluation.reward_model import RewardModel

    config = json.dumps({"model_type": "llama", "architectures": ["LlamaForScore"]}).encode()
    files = {
        "config.json": config,
        "model.safetensors": b"w",
        "pytorch_model.bin": b"\x80\x04.",
        "m.py": b"",
    }
    with connected(monkeypatch, tmp_path) as hub:
        hub.add("alice/score", files)
        with pytest.raises(PvMergeError, match=r"alice/score: cannot be loaded"):
            RewardModel("alice/score")
        asked = [path for _, path, _ in hub.requests]
    assert any(path.endswith("config.json") for path in asked)
    assert not [path for path in asked if path.endswith((".bin", ".py"))]


def test_a_folder_with_a_pickle_alone_is_not_loaded(tmp_path: Path):
    import torch

    from pv_merge.live.subject import load_subject
    from trainers.model import load_model
    from trainers.settings import DPOSettings

    from train_tiny import save_base

    base = save_base(tmp_path / "base")
    weights = base / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), base / "pytorch_model.bin")
    weights.unlink()
    settings = DPOSettings(
        base_model=str(base), preference="x", dataset={"path": "x"}, output_dir=str(tmp_path / "o")
    )
    for load in (lambda: load_subject(str(base)), lambda: load_model(settings)):
        with pytest.raises(PvMergeError, match="cannot be loaded"):
            load()


def test_a_model_that_needs_its_own_code_is_not_loaded(tmp_path: Path):
    from pv_merge.live.subject import load_subject
    from trainers.model import load_tokenizer

    canary = tmp_path / "canary"
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("modeling_x.py", "configuration_x.py", "tokenization_x.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w').write('ran')\n")
    auto = {"AutoConfig": "configuration_x.C", "AutoModelForCausalLM": "modeling_x.M"}
    auto |= {"AutoTokenizer": ["tokenization_x.T", None]}
    config = {"model_type": "x", "auto_map": auto, "tokenizer_class": "T"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for load in (load_subject, load_tokenizer):
        with pytest.raises(PvMergeError, match="cannot be loaded"):
            load(str(folder))
    assert not canary.exists()
