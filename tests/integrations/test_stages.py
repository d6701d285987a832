"""Stages of mergekit-multi in which a preference is added to what another method made, and flags."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from pv_merge.artifacts.vector import PreferenceVector
from pv_merge.cli import main
from pv_merge.merging.extract import ExtractOptions, extract

from models import largest_difference, mergekit_yaml, perturbed, recipe, save, state, tiny

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a vector of it, and two other fine-tunes."""
    root = tmp_path_factory.mktemp("stages")
    base = tiny()
    save(base, root / "base")
    for seed, name in enumerate(("one", "two", "positive", "negative"), start=1):
        save(perturbed(base, seed, 0.02), root / name)
    options = ExtractOptions(str(root / "base"), "polite")
    extract(root / "positive", root / "negative", root / "vector", options)
    return root


def first(root: Path, method: str) -> dict[str, Any]:
    models = [{"model": str(root / name), "parameters": {"weight": 0.5}} for name in ("one", "two")]
    said: dict[str, Any] = {"name": "both", "merge_method": method, "models": models}
    if method == "slerp":
        said |= {"base_model": str(root / "one"), "parameters": {"t": 0.5}}
    return {**said, "dtype": "float32"}


def second(root: Path, **said: Any) -> dict[str, Any]:
    inputs = [(str(root / "vector"), {"preference": "polite", "polarity": "vector", "eta": 0.7})]
    return recipe("both", inputs, said)


def multi(root: Path, method: str, tmp_path: Path, *options: str, **said: Any) -> Any:
    path = tmp_path / "stages.yml"
    path.write_text(yaml.safe_dump_all([first(root, method), second(root, **said)]))
    command = [str(BIN / "mergekit-multi"), str(path), "--out-path", str(tmp_path / "out")]
    command += ["--intermediate-dir", str(tmp_path / "between"), "--no-copy-tokenizer", *options]
    return subprocess.run(command, capture_output=True, text=True)


def slerp(left: Tensor, right: Tensor, t: float = 0.5) -> Tensor:
    """Spherical interpolation of two tensors, as vectors of their own norms."""
    a, b = left.double(), right.double()
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if float(cosine.abs()) > 0.9995:
        return (1 - t) * a + t * b
    angle = cosine.arccos()
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_preference_on_what_another_method_made(method: str, root: Path, tmp_path: Path) -> None:
    done = multi(root, method, tmp_path, allow_related_base=True)
    assert done.returncode == 0, done.stderr
    one, two = state(root / "one"), state(root / "two")
    phis = dict(PreferenceVector.load(root / "vector").items())
    found = state(tmp_path / "out")
    for name, phi in phis.items():
        left, right = one[name], two[name]
        both = (left.double() + right.double()) / 2 if method == "linear" else slerp(left, right)
        assert largest_difference(found[name], both + 0.7 * phi.double()) < 1e-6, name


@pytest.mark.slow
def test_without_a_word_a_stage_is_another_base(root: Path, tmp_path: Path) -> None:
    done = multi(root, "linear", tmp_path)
    assert done.returncode != 0
    assert "was made from another base than" in done.stderr
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_recipe_of_several_stages_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "stages.yml"
    path.write_text(yaml.safe_dump_all([first(root, "linear"), second(root)]))
    for command in (["run", str(path), str(tmp_path / "out")], ["check", str(path)]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        line = f"{path}: holds 2 recipes, the stages of mergekit-multi, and pv-merge takes one; run"
        assert line in result.stderr + result.stdout
    assert not (tmp_path / "out").exists()


def test_a_single_document_may_be_marked(root: Path, tmp_path: Path) -> None:
    document = {**second(root), "base_model": str(root / "base")}
    path = tmp_path / "one.yml"
    path.write_text(f"---\n{yaml.safe_dump(document)}...\n")
    result = CliRunner().invoke(main, ["run", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output


FLAGS = {
    "lazy": ["--lazy-unpickle", "--low-cpu-memory"],
    "threads": ["--num-threads", "2", "--async-write"],
    "cuda": ["--cuda", "--low-cpu-memory"],
    "read to the GPU": ["--cuda", "--read-to-gpu"],
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_mergekit_give_the_same_weights(flags: str, root: Path, tmp_path: Path) -> None:
    """Also where the base of a lone policy is read beside mergekit's own inputs."""
    if "--cuda" in FLAGS[flags] and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    said = {"preference": "polite", "polarity": "positive", "eta": 0.7, "base": str(root / "base")}
    document = recipe(str(root / "one"), [(str(root / "positive"), said)])
    document["parameters"] = {"allow_related_base": True, "round_to": "bfloat16"}
    plain = state(mergekit_yaml(document, tmp_path / "plain"))
    with_flags = state(mergekit_yaml(document, tmp_path / "flags", *FLAGS[flags]))
    for name, tensor in plain.items():
        assert torch.equal(tensor, with_flags[name]), name
