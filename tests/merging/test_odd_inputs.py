"""What ``run`` does with NaN, infinity and whole numbers, and on systems that lack Linux's calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pv_merge.errors import PvMergeError
from pv_merge.merging.run import run

from models import mergekit_yaml, pair, perturbed, recipe, save, state, tiny, write_state
from policies import adapted, save_adapter

WEIGHT = "model.layers.0.mlp.up_proj.weight"
ODD = [float("nan"), float("inf"), float("-inf")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("models")
    base = tiny(tied=True)
    models = [base, *(perturbed(base, seed, 1e-3) for seed in (1, 2, 3))]
    return [save(model, place / f"m{number}") for number, model in enumerate(models)]


def changed(folder: str, place: Path, **tensors: torch.Tensor) -> str:
    return write_state(place, {**state(folder), **tensors}, folder)


def spoilt(folder: str, place: Path, value: float) -> str:
    weight = state(folder)[WEIGHT].clone()
    weight[2, 3] = value
    return changed(folder, place, **{WEIGHT: weight})


def written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("which", ["base", "positive", "negative"])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"round_to": "bfloat16"}, {"density": 0.5}, {"max_relative_norm": 0.1}],
    ids=str,
)
def test_a_value_that_is_not_finite_is_refused_by_file_and_tensor(
    value: float, which: str, parameters: dict[str, Any], folders: list[str], tmp_path: Path
) -> None:
    number = ("base", "positive", "negative").index(which)
    chosen = list(folders[:3])
    chosen[number] = spoilt(folders[number], tmp_path / "bad", value)
    document = recipe(chosen[0], pair(chosen[1], chosen[2], 0.5), parameters)
    path = written(tmp_path / "r.yml", document)
    with pytest.raises(PvMergeError, match=r"/bad: .*up_proj.weight holds values that are not f"):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_base_stays_where_a_policy_is_not_finite(folders: list[str], tmp_path: Path) -> None:
    bad = spoilt(folders[1], tmp_path / "bad", float("inf"))
    settings = {"not_finite": "keep_base"}
    kept = recipe(folders[0], pair(bad, folders[2], 0.5), settings)
    report = run(written(tmp_path / "r.yml", kept), tmp_path / "out")
    assert report["base_kept"] == {WEIGHT: 1}
    usual = recipe(folders[0], pair(folders[1], folders[2], 0.5))
    run(written(tmp_path / "u.yml", usual), tmp_path / "usual")
    base, out, expected = (state(f) for f in (folders[0], tmp_path / "out", tmp_path / "usual"))
    expected[WEIGHT][2, 3] = base[WEIGHT][2, 3]
    assert all(torch.equal(out[name], expected[name]) for name in expected)
    stock = state(mergekit_yaml(kept, tmp_path / "stock"))
    assert all(torch.equal(out[name], stock[name]) for name in out)


@pytest.mark.parametrize("value", ODD)
def test_an_adapter_that_is_not_finite_is_refused(
    value: float, folders: list[str], tmp_path: Path
) -> None:
    policy = adapted(tiny(tied=True), 1)
    with torch.no_grad():
        next(p for n, p in policy.named_parameters() if "lora_A" in n)[0, 0] = value
    folder = save_adapter(policy, tmp_path / "lora", folders[0])
    inputs = [(folder, {"preference": "helpful", "polarity": "positive", "eta": 0.5})]
    with pytest.raises(PvMergeError, match=r"lora.*not finite"):
        run(written(tmp_path / "r.yml", recipe(folders[0], inputs)), tmp_path / "out")


def test_a_result_beyond_the_dtype_is_refused(folders: list[str], tmp_path: Path) -> None:
    large = changed(folders[1], tmp_path / "large", **{WEIGHT: state(folders[1])[WEIGHT] + 9e4})
    document = recipe(folders[0], pair(large, folders[2], 1.0), {"round_to": "float16"})
    path = written(tmp_path / "r.yml", {**document, "out_dtype": "float16"})
    with pytest.raises(PvMergeError, match=r"up_proj\.weight: base \+ .* is beyond F16; is an eta"):
        run(path, tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool])
@pytest.mark.parametrize("which", ["base", "policy"])
def test_whole_numbers_are_no_weights(
    which: str, dtype: torch.dtype, folders: list[str], tmp_path: Path
) -> None:
    number = ("base", "policy").index(which)
    chosen = list(folders[:3])
    whole = (state(folders[number])[WEIGHT] * 100).to(dtype)
    chosen[number] = changed(folders[number], tmp_path / "whole", **{WEIGHT: whole})
    path = written(tmp_path / "r.yml", recipe(chosen[0], pair(chosen[1], chosen[2], 0.5)))
    with pytest.raises(PvMergeError, match="only floats are merged"):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_systems_without_linux_calls_write_the_same_bytes(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = {"round_to": "bfloat16", "density": 0.5}
    document = recipe(folders[0], pair(folders[1], folders[2], 0.5), controls)
    path = written(tmp_path / "r.yml", document)
    run(path, tmp_path / "usual", threads=3)
    for call in ("posix_fallocate", "preadv", "pread", "pwrite"):
        monkeypatch.delattr(os, call)
    run(path, tmp_path / "portable", threads=3)
    files = [tmp_path / name / "model.safetensors" for name in ("usual", "portable")]
    assert files[0].read_bytes() == files[1].read_bytes()
