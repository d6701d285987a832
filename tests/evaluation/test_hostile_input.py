"""Hostile files, prompts and models in front of sweep, evaluate, calibrate and chat: one line each."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from pv_merge.artifacts.folders import only_writer
from pv_merge.cli import main
from pv_merge.errors import PvMergeError, harmless_text
from pv_merge.evaluation.journal import Journal
from pv_merge.evaluation.measures.registry import build_measures
from pv_merge.live.subject import load_subject

from eval_tiny import make_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hostile")
    make_recipe(home)
    return home


def said(*arguments: str, code: int = 1, input: str | bytes | None = None) -> str:
    result = CliRunner().invoke(main, list(arguments), input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def sweep(home: Path, out: Path, *arguments: str, code: int = 1) -> str:
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    axes = ("--eta", "polite=0,1")
    recipe = str(home / "recipe.yml")
    return said("sweep", recipe, *axes, *pairs, "-o", str(out), *arguments, code=code)


CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass X: pass\n"


def test_code_in_a_model_folder_is_never_run(home: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(home / "base", base)
    config = json.loads((base / "config.json").read_text())
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    config |= {"model_type": "evil", "auto_map": dict.fromkeys(kinds, "evil.X")}
    (base / "config.json").write_text(json.dumps(config))
    (base / "evil.py").write_text(CODE)
    document = yaml.safe_load((home / "recipe.yml").read_text())
    document["base_model"] = str(base)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(document))
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    recipe, out = str(tmp_path / "recipe.yml"), str(tmp_path / "out")
    lines = [
        said("evaluate", str(base), *pairs, "-o", f"{out}.json"),
        said("sweep", recipe, "--eta", "polite=0,1", *pairs, "-o", out),
        said("calibrate", recipe, "--maximize", "polite", *pairs, "-o", out),
        said("chat", recipe, input="Hi\n"),
    ]
    reward = ("--reward-model", str(base), "--reward-prompts", str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_text("Why?\n")
    lines.append(said("evaluate", str(home / "base"), *reward, "-o", f"{out}2.json"))
    assert not (base / "ran").exists()
    for line in lines:
        assert sum(text.startswith("Error: ") for text in line.splitlines()) == 1, line
        assert "Traceback" not in line


@pytest.mark.parametrize(
    "content",
    ["[]", '"x"', '{"model_type": 3}', '{"model_type": "llama", "hidden_size": "x"}', "{", "null"],
)
def test_a_config_of_any_kind_is_one_line(content: str, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "base", tmp_path / "base")
    (tmp_path / "base/config.json").write_text(content)
    with pytest.raises(PvMergeError) as error:
        load_subject(str(tmp_path / "base"))
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"prompt\n\xff\xfe\n", "not text in UTF-8"),
        ("p.csv", b'prompt\n"' + b"a" * 200_000 + b'"\n', "is not valid csv"),
        ("p.jsonl", b'{"prompt": "\\ud800"}\n', "half a character"),
        ("p.jsonl", b'{"prompt": null}\n', "row 1 has no prompt"),
        ("p.jsonl", b'{"prompt": [["x"]]}\n', "must be text or messages"),
        ("p.jsonl", b"[" * 5000 + b"\n", "nested more than"),
        ("p.jsonl", b'{"prompt": "a", "prompt": "b"}\n', "stands there twice"),
        ("p.txt", b"\n\n", "holds no prompts"),
    ],
)
def test_prompts(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PvMergeError, match=message):
        build_measures(refusal=[str(tmp_path / name)])


@pytest.mark.parametrize(
    "row",
    [
        {"question": "x", "choices": {"label": ["A", "B"], "text": ["x"]}, "answerKey": "A"},
        {"question": "x", "choices": {"label": ["A", "A"], "text": ["x", "y"]}, "answerKey": "A"},
        {"question": None, "choices": {"label": ["A"], "text": ["x"]}, "answerKey": "A"},
        {"question": "x", "choices": 3, "answerKey": "A"},
        {"question": "x", "choices": {"label": ["A"], "text": ["x"]}, "answerKey": "C"},
    ],
)
def test_questions(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(PvMergeError, match="row 1 is not of CommonsenseQA's form"):
        build_measures(capability=[str(tmp_path / "q.jsonl")])


def test_a_prompt_that_is_too_long_or_no_text(home: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("word " * 600)
    text = sweep(home, tmp_path / "a", "--refusal", str(tmp_path / "p.txt"))
    assert "all 1 prompts fill the 512 tokens" in text
    assert "expected a question" in sweep(home, tmp_path / "b", "--prompt", "\udcff")
    assert "expected a question" in sweep(home, tmp_path / "c", "--prompt", "  ")


def test_an_eta_or_a_weight_that_is_not_finite(home: Path, tmp_path: Path) -> None:
    text = sweep(home, tmp_path / "out", "--eta", "brief=0,1e39")
    assert "eta of brief must be a finite number in float32, got 1e+39" in text
    shutil.copytree(home / "base", tmp_path / "base")
    file = tmp_path / "base/model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
    text = said("evaluate", str(tmp_path / "base"), *pairs, "-o", str(tmp_path / "one.json"))
    assert "is nan at this model; is eta too large, or do the weights hold values that are" in text
    assert not (tmp_path / "one.json").exists()
    assert not (tmp_path / "out").exists()
    text = (tmp_path / "one.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_chat_does_not_let_an_answer_steer_the_terminal() -> None:
    assert harmless_text("a\x1b[2Jb\x07\r\n\tc\x9bm") == "a[2Jb\n\tcm"
    assert harmless_text("é 👩‍💻 ✓") == "é 👩‍💻 ✓"


def test_chat_lines_that_are_no_text(home: Path) -> None:
    assert "are not text in UTF-8" in said("chat", str(home / "recipe.yml"), input=b"\xff\xfe\n")


def test_two_sweeps_of_one_folder(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with only_writer(out / "results.jsonl"):
        assert "another process is writing it now" in sweep(home, out)
        pairs = ("--pairs", f"polite={home / 'pairs.jsonl'}")
        text = said("evaluate", str(home / "base"), *pairs, "-o", str(out / "results.json"))
        assert "another process is writing it now" in text
    sweep(home, out, code=0)
    assert not list(out.glob(".*"))


def _sweep_in_a_process(home: str, out: str) -> None:
    torch.set_num_threads(1)
    sweep(Path(home), Path(out), "--eta", "brief=0,0.25,0.5,0.75,1", code=0)


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_any_time_goes_on(home: Path, tmp_path: Path) -> None:
    out, spawn = tmp_path / "out", multiprocessing.get_context("spawn")
    whole = tmp_path / "whole"
    _sweep_in_a_process(str(home), str(whole))
    for kill in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = spawn.Process(target=_sweep_in_a_process, args=(str(home), str(out)))
        process.start()
        before = _lines(out)
        deadline = time.monotonic() + 120
        while _lines(out) < before + 3 and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, kill)
        process.join()
    _sweep_in_a_process(str(home), str(out))
    found, wanted = (json.loads((place / "summary.json").read_text()) for place in (out, whole))
    assert found["points"] == wanted["points"] and found["steps"] == wanted["steps"]


def _lines(out: Path) -> int:
    path = out / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_answer_with_unicode_line_breaks_is_read_again(tmp_path: Path) -> None:
    path, subject = tmp_path / "results.jsonl", {"recipe": "a"}
    journal = Journal(path, subject, {})
    journal.put({"a": 1.0}, "m", {"answers": ["one\u2028two\x85three\u2029"]}, 0.1, {})
    again = Journal(path, subject, {})
    assert again.get({"a": 1.0}, "m") == {"answers": ["one\u2028two\x85three\u2029"]}


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "record"}',
        '{"kind": "record", "point": 3, "measure": "m"}',
        '{"kind": "measure", "measure": []}',
        '{"kind": "part", "point": {"a": "x"}, "measure": "m", "part": 1, "value": 2}',
    ],
)
def test_a_line_of_the_journal_that_was_changed(line: str, tmp_path: Path) -> None:
    path, subject = tmp_path / "results.jsonl", {"recipe": "a"}
    Journal(path, subject, {})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(PvMergeError, match="line 2 is not as it was written"):
        Journal(path, subject, {})


def test_an_infinite_weight_in_the_loss_report(home: Path, tmp_path: Path) -> None:
    recipe, out = str(home / "recipe.yml"), tmp_path / "out"
    said("run", recipe, str(out), code=0)
    file = next(iter(out.glob("*.safetensors")))
    tensors = load_file(file)
    name = next(name for name in tensors if "up_proj" in name)
    tensors[name][0, 0] = torch.inf
    save_file(tensors, file, metadata={"format": "pt"})
    text = said("report", recipe, str(out))
    assert sum(line.startswith("Error: ") for line in text.splitlines()) == 1
    assert name in text and "not finite" in text
