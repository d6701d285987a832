"""The whole merged model as GGUF, and the whole mix as one GGUF adapter, in llama.cpp itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.integrations import gguf_quantize
from pv_merge.integrations.export import export
from pv_merge.integrations.gguf_convert import require_family
from pv_merge.merging.run import run

from models import PROMPT, largest_difference, load, logits, pair, recipe, save, tiny
from policies import adapted, save_adapter

engine = pytest.importorskip("benchmarks.llama_engine", reason="run from the repository")
gguf_base = pytest.importorskip("benchmarks.gguf_base")

SMOLLM2 = Path("models/smollm2-135m-instruct")
"""Whose tokenizer the tiny models have: the converter knows tokenizers by what they make of a text."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

needs_converter = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> str:
    found: str | None = engine.llama_python()
    if found is None:
        pytest.skip("llama_cpp is not installed; make test-llama builds it (6 minutes)")
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a vocabulary of 49152, and four adapters over it."""
    root = tmp_path_factory.mktemp("gguf")
    model = tiny(vocab_size=49152)
    base = save(model, root / "base")
    for seed, name in enumerate(("helpful", "unhelpful", "polite", "rude"), start=1):
        save_adapter(adapted(model, seed, r=4), root / name, base)
    return root


@pytest.fixture(scope="module")
def spoken(root: Path) -> Path:
    """The same with a tokenizer that llama.cpp knows."""
    pytest.importorskip("auto_round")
    if not SMOLLM2.is_dir():
        pytest.skip("needs models/smollm2-135m-instruct (pv-merge fetch)")
    for name in TOKENIZER:
        if (SMOLLM2 / name).exists():
            shutil.copy(SMOLLM2 / name, root / "base")
    return root


def document(root: Path, **said: Any) -> dict[str, Any]:
    inputs = pair(str(root / "helpful"), str(root / "unhelpful"), 0.8)
    inputs += pair(str(root / "polite"), str(root / "rude"), -0.3, "polite")
    return recipe(str(root / "base"), inputs, said)


def written(root: Path, folder: Path, **said: Any) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document(root, **said)))
    return path


def in_llama(python: str, model: Path, adapters: list[Path] | None = None) -> torch.Tensor:
    scales = [1.0] * len(adapters or [])
    cases = [(PROMPT[0].tolist(), scales)]
    (found,) = engine.llama_logits(python, model, adapters or [], cases)
    return torch.from_numpy(found)


# ---- the whole mix as one adapter ------------------------------------------------------------------


def test_the_mix_as_one_adapter_is_the_merged_checkpoint(
    root: Path, python: str, tmp_path: Path
) -> None:
    path = written(root, tmp_path)
    manifest = export(path, tmp_path / "gguf", "gguf", mix=True)
    assert manifest["rank"] == 16 and manifest["file"] == "mix.gguf"
    assert sorted(p.name for p in (tmp_path / "gguf").iterdir()) == [
        *("Modelfile", "mix.gguf", "pv_export.json"),
    ]
    gguf_base.write_base(str(root / "base"), tmp_path / "base.gguf")
    run(path, tmp_path / "merged")
    found = in_llama(python, tmp_path / "base.gguf", [tmp_path / "gguf" / "mix.gguf"])
    assert largest_difference(found, logits(tmp_path / "merged")[0]) < 2e-5
    assert largest_difference(found, logits(root / "base")[0]) > 0.05


def test_an_eta_by_layer_goes_into_a_mix_only(root: Path, tmp_path: Path) -> None:
    said = document(root)
    said["models"][0]["parameters"]["eta"] = [0.2, 1.0]
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(said))
    with pytest.raises(PvMergeError, match=r"llama\.cpp has one scale for a whole adapter"):
        export(path, tmp_path / "one", "gguf")
    arguments = ["export", str(path), "--to", "gguf", "--mix", "-o", str(tmp_path / "mix")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "ollama create mine" in result.stdout
    assert "ADAPTER ./mix.gguf" in (tmp_path / "mix" / "Modelfile").read_text()


# ---- the whole model -----------------------------------------------------------------------------


@needs_converter
@pytest.mark.parametrize("narrow", [False, True])
def test_the_merged_model_in_llama_cpp(
    narrow: bool, spoken: Path, python: str, tmp_path: Path
) -> None:
    """By llama.cpp's own converter and engine, against transformers on the merged checkpoint."""
    said = {"round_to": "bfloat16"} if narrow else {}
    path = written(spoken, tmp_path, **said)
    export(path, tmp_path / "gguf", "gguf-model")
    assert sorted(p.name for p in (tmp_path / "gguf").iterdir()) == [
        *("Modelfile", "model.gguf", "pv_export.json"),
    ]
    assert (tmp_path / "gguf" / "Modelfile").read_text() == "FROM ./model.gguf\n"
    run(path, tmp_path / "merged")
    found = in_llama(python, tmp_path / "gguf" / "model.gguf").log_softmax(-1)
    want = logits(tmp_path / "merged")[0].log_softmax(-1)
    # llama.cpp multiplies bfloat16 weights by activations that it rounds to bfloat16.
    assert largest_difference(found, want) < (0.15 if narrow else 2e-5)


@needs_converter
def test_quantized_by_llama_cpps_quantizer(
    spoken: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    types = json.dumps(gguf_quantize.quantization_types())
    script = f"""#!{Path(python).absolute()}
import sys
source, target, kind, threads = sys.argv[1:]
sys.argv = ["", source, target, {types}[kind], threads]
{gguf_quantize._CODE}"""
    (programs / "llama-quantize").write_text(script)
    (programs / "llama-quantize").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    path = written(spoken, tmp_path)
    manifest = export(path, tmp_path / "gguf", "gguf-model", quantize="Q8_0")
    assert manifest["file"] == "model-Q8_0.gguf" and manifest["quantize"] == "Q8_0"
    assert not (tmp_path / "gguf" / "model.gguf").exists()
    run(path, tmp_path / "merged")
    found = in_llama(python, tmp_path / "gguf" / "model-Q8_0.gguf")
    apart = largest_difference(found, logits(tmp_path / "merged")[0])
    assert 1e-4 < apart < 0.5


@needs_converter
def test_smollm2_says_the_same_in_llama_cpp(python: str, tmp_path: Path) -> None:
    """Log-probs of the first token of an answer: the merged checkpoint against its GGUF."""
    pytest.importorskip("auto_round")
    if not SMOLLM2.is_dir():
        pytest.skip("needs models/smollm2-135m-instruct (pv-merge fetch)")
    from transformers import AutoTokenizer

    policies = Path("recipes/quickstart/policies")
    inputs = pair(str(policies / "polite/positive"), str(policies / "polite/negative"), 1.0)
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe(f"./{SMOLLM2}", inputs, None, out_dtype="float32")))
    export(path, tmp_path / "gguf", "gguf-model")
    run(path, tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    said = [{"role": "user", "content": "My driving test went badly."}]
    ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    (found,) = engine.llama_logits(python, tmp_path / "gguf" / "model.gguf", [], [(ids, [])])
    model = load(tmp_path / "merged")
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    first = torch.from_numpy(found)[-1].log_softmax(-1)
    assert int(first.argmax()) == int(want.argmax())
    print("largest difference of log-probs:", largest_difference(first, want))
    assert largest_difference(first, want) < 1e-3


# ---- what cannot be written ------------------------------------------------------------------------


@needs_converter
def test_a_tokenizer_that_the_converter_does_not_know(root: Path, tmp_path: Path) -> None:
    from train_tiny import save_base

    base = save_base(tmp_path / "base")
    save_adapter(adapted(load(base), 1), tmp_path / "up", str(base))
    said = {"preference": "kind", "polarity": "positive", "eta": 1.0}
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe(str(base), [(str(tmp_path / "up"), said)])))
    with pytest.raises(PvMergeError, match=r"llama\.cpp.s converter: .*pre-tokenizer"):
        export(path, tmp_path / "gguf", "gguf-model")
    assert not (tmp_path / "gguf").exists()


@needs_converter
def test_a_family_that_the_converter_does_not_know() -> None:
    pytest.importorskip("auto_round")
    require_family({"architectures": ["LlamaForCausalLM"]}, "base")
    line = r"base: llama\.cpp's converter: does not know StrangeForCausalLM"
    with pytest.raises(PvMergeError, match=line):
        require_family({"architectures": ["StrangeForCausalLM"]}, "base")


def test_without_a_quantizer_or_with_an_unknown_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        PvMergeError, match=r"Q4_K_X: is no type of llama\.cpp.s; did you mean Q4_K"
    ):
        gguf_quantize.require_quantizer("Q4_K_X")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PvMergeError, match="put its llama-quantize on the PATH, or pip install"):
        gguf_quantize.require_quantizer("Q4_K_M")


def test_a_quantizer_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "llama-quantize"
    program.write_text("#!/bin/sh\necho 'the tensor is odd' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PvMergeError, match="did not quantize the model into Q4_0: the tensor is"):
        gguf_quantize.quantize(tmp_path / "in", tmp_path / "out", "Q4_0")


@pytest.mark.parametrize(
    ("to", "options", "line"),
    [
        ("peft", {"quantize": "Q4_K_M"}, "--quantize does not apply to --to peft"),
        ("gguf", {"quantize": "Q4_K_M"}, "--quantize does not apply to --to gguf"),
        ("peft", {"mix": True}, "--mix does not apply to --to peft"),
        ("gguf-model", {"mix": True}, "--mix does not apply to --to gguf-model"),
        ("gguf-model", {"rank": 4}, "--rank and --dtype are of adapters"),
        ("gguf-model", {"dtype": "bfloat16"}, "--rank and --dtype are of adapters"),
    ],
)
def test_options_that_a_target_would_ignore(
    to: str, options: dict[str, Any], line: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(PvMergeError, match=line):
        export(written(root, tmp_path), tmp_path / "out", to, **options)
    assert not (tmp_path / "out").exists()
