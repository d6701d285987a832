"""A checkpoint is read as transformers loads it, or refused where that is not one thing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import kind_problems, unmergeable
from pv_merge.artifacts.model_files import INDEX_NAME
from pv_merge.errors import PvMergeError

from models import load, perturbed, save, state, tiny


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return Path(save(tiny(), tmp_path / "model", shard="20KB"))


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / INDEX_NAME
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    path.write_text(json.dumps(index))


def test_shards_are_what_transformers_loads(sharded: Path) -> None:
    checkpoint = Checkpoint(sharded)
    assert len(checkpoint.files) > 1
    for name, weight in load(sharded).state_dict().items():
        assert torch.equal(checkpoint.tensor(name), weight), name


def test_one_file_beside_others_is_what_transformers_loads(tmp_path: Path) -> None:
    """The names of the others come later, so that reading all files would take theirs."""
    folder = Path(save(tiny(), tmp_path / "model"))
    other = Path(save(perturbed(tiny(), 1), tmp_path / "other"))
    shutil.copy(other / "model.safetensors", folder / "z.safetensors")
    checkpoint = Checkpoint(folder)
    loaded = load(folder).state_dict()
    for name in checkpoint.names:
        assert torch.equal(checkpoint.tensor(name), loaded[name]), name


def test_several_files_without_an_index_are_refused(sharded: Path) -> None:
    (sharded / INDEX_NAME).unlink()
    with pytest.raises(OSError):  # transformers has none of it
        load(sharded)
    with pytest.raises(PvMergeError, match=r"but neither model\.safetensors nor .*index\.json, so"):
        _ = Checkpoint(sharded).names


def test_one_file_and_an_index_of_others_are_refused(sharded: Path) -> None:
    save_file(state(sharded), sharded / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PvMergeError, match="transformers loads the one and mergekit the others"):
        _ = Checkpoint(sharded).names


def test_indexes_that_do_not_hold(sharded: Path, tmp_path: Path) -> None:
    name = "model.norm.weight"
    held = json.loads((sharded / INDEX_NAME).read_text())["weight_map"]
    elsewhere = next(file for file in held.values() if file != held[name])
    outside = Path(save(tiny(), tmp_path / "outside")) / "model.safetensors"
    cases: list[tuple[dict[str, Any], str]] = [
        ({name: "../outside/model.safetensors"}, "only safetensors files beside it are read"),
        ({name: str(outside)}, "only safetensors files beside it are read"),
        ({name: "..\\outside"}, "only safetensors files beside it are read"),
        ({name: "weights.bin"}, "only safetensors files beside it are read"),
        ({name: "gone.safetensors"}, "missing, though the index names it"),
        ({name: elsewhere}, rf"lists {name} in {elsewhere}, but it is in {held[name]}"),
        ({"a.b": elsewhere}, rf"lists a\.b in {elsewhere}, but it is in none of its files"),
        ({name: 5}, rf"weight_map\.{name}: expected a valid string, got 5"),
    ]
    for number, (changes, line) in enumerate(cases):
        folder = shutil.copytree(sharded, tmp_path / str(number))
        edit_index(folder, **changes)
        with pytest.raises(PvMergeError, match=line):
            _ = Checkpoint(folder).names
    for text in ('{"weight_map": []}', '{"weight_map": {}}', "{}", "[]", '{"weight_map": {"a": 1'):
        (sharded / INDEX_NAME).write_text(text)
        with pytest.raises(PvMergeError, match=INDEX_NAME):
            _ = Checkpoint(sharded).names


def test_a_tensor_that_the_index_does_not_list(sharded: Path) -> None:
    path = Checkpoint(sharded).files[0]
    save_file({**load_file(path), "extra": torch.ones(1)}, path, metadata={"format": "pt"})
    with pytest.raises(PvMergeError, match=r"lists extra nowhere, but it is in model-00001"):
        _ = Checkpoint(sharded).names


def test_a_tensor_in_two_files(sharded: Path) -> None:
    first, second = Checkpoint(sharded).files[:2]
    tensors = load_file(first)
    save_file({**load_file(second), **tensors}, second, metadata={"format": "pt"})
    with pytest.raises(PvMergeError, match=rf"holds .*, as does {first.name} beside it"):
        _ = Checkpoint(sharded).names


def test_weights_that_are_no_ordinary_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(PvMergeError, match=r"model\.safetensors: is not an ordinary file"):
        _ = Checkpoint(folder).names  # opening it would wait for ever
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(PvMergeError, match=r"model\.safetensors: is not an ordinary file"):
        _ = Checkpoint(folder).names


def test_a_tokenizer_that_is_no_ordinary_file(tmp_path: Path) -> None:
    folder = Path(save(tiny(), tmp_path / "model"))
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(PvMergeError, match=r"tokenizer\.json: is not an ordinary file"):
        Checkpoint(folder).copy_companions(tmp_path)


def test_names_that_no_file_system_takes() -> None:
    with pytest.raises(PvMergeError, match="the name is too long"):
        Checkpoint("./" + "n" * 300)


def stored(folder: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_integers_are_no_weights_unless_they_are_equal_buffers(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    ones = torch.ones(2, 3).to(dtype)
    base = stored(tmp_path / "base", {"w": torch.zeros(2, 3), "mask": ones})
    same = stored(tmp_path / "same", {"w": torch.ones(2, 3), "mask": ones})
    assert kind_problems(base, same) == [] and unmergeable(base) == []
    moved = stored(tmp_path / "moved", {"w": torch.ones(2, 3), "mask": torch.zeros_like(ones)})
    assert "the buffer mask differs from the base's" in kind_problems(base, moved)[0]
    policy = stored(tmp_path / "policy", {"w": ones.clone(), "mask": ones})
    (line,) = kind_problems(base, policy)
    assert line.startswith(f"{policy}: stores w as ") and "the base" in line and "as F32" in line
    (line,) = kind_problems(policy, base)
    assert "stores w as F32, the base" in line


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16])
def test_dtypes_that_are_no_numbers_here(tmp_path: Path, dtype: torch.dtype) -> None:
    base = stored(tmp_path / "base", {"w": torch.ones(2, 3).to(dtype), "b": torch.ones(1)})
    (line,) = unmergeable(base)
    assert "which cannot be merged; name the model before it was quantized" in line
