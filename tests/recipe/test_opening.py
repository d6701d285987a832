"""A recipe is checked and opened in one go: each file once, each eta resolved once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import yaml
from opened_files import opened
from safetensors.torch import save_file

from pv_merge.artifacts.checkpoint import TOKENIZER_FILES, Checkpoint
from pv_merge.artifacts.weights_file import WeightsFile
from pv_merge.errors import PvMergeError, Topic
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.run import run, run_grid
from pv_merge.recipe import recipe as recipe_module
from pv_merge.recipe.opening import check, open_recipe

from models import pair, perturbed, recipe, save, tiny
from policies import adapted, save_adapter, say

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts opens by inotify")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two policies with manifests, a dense vector, in shards."""
    root = tmp_path_factory.mktemp("opening")
    base = tiny()
    save(base, root / "base", shard="40KB")
    for seed, name in enumerate(("positive", "negative", "other"), start=1):
        save(perturbed(base, seed, 0.01), root / name, shard="40KB")
        for folder in (root / name, root / "base"):
            (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    extract(
        root / "other",
        root / "negative",
        root / "vector",
        ExtractOptions(str(root / "base"), "kind"),
    )
    save_adapter(adapted(base, 7), root / "adapter", str(root / "base"))
    say(str(root / "adapter"), kind="policy", preference="polite", polarity="positive")
    return root


def document(root: Path, eta: Any = 0.5) -> dict[str, Any]:
    inputs = pair(str(root / "positive"), str(root / "negative"), eta)
    inputs.append((str(root / "vector"), {"preference": "kind", "polarity": "vector", "eta": 0.25}))
    said = {"preference": "polite", "polarity": "positive", "eta": 1.0}
    inputs.append((str(root / "adapter"), said))
    return recipe(str(root / "base"), inputs)


def written(path: Path, said: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


@linux
@pytest.mark.parametrize("grid", [False, True])
def test_no_file_is_opened_twice_for_what_it_says(grid: bool, root: Path, tmp_path: Path) -> None:
    path = written(root / "recipe.yml", document(root))
    open_recipe(path)  # so that the base's hash is known
    headers: list[str] = []
    original = safetensors.safe_open

    def counted(file: Any, *arguments: Any, **named: Any) -> Any:
        headers.append(str(Path(file).relative_to(root)))
        return original(file, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch, opened(root) as counts:
        patch.setattr(safetensors, "safe_open", counted)
        if grid:
            run_grid(path, tmp_path / "out", [{"helpful": 0.1}, {"helpful": -0.1}])
        else:
            run(path, tmp_path / "out")
    weights = {name for name in counts if name.endswith(".safetensors")}
    assert len(weights) > 8
    assert sorted(headers) == sorted(weights)  # each header once, and by the library's own check
    for name, count in counts.items():
        if name in weights:
            # the header, a map for the probe of one small weight, a descriptor to read blocks by
            assert count <= 3, (name, count)
        elif Path(name).name in TOKENIZER_FILES:
            assert count <= 2 + grid, (name, count)  # the check reads it, each output copies it
        else:
            assert count == 1, (name, count)
    assert counts["recipe.yml"] == 1
    assert counts["vector/preference_vector.json"] == counts["adapter/pv_run.json"] == 1
    assert counts["adapter/adapter_config.json"] == 1
    assert counts["base/config.json"] == counts["positive/config.json"] == 1


@pytest.mark.parametrize("eta", [0.5, [0.0, 1.0]])
def test_etas_are_resolved_once(eta: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = recipe_module.resolve
    monkeypatch.setattr(
        recipe_module, "resolve", lambda settings: (calls.append(1), original(settings))[1]
    )
    found = open_recipe(written(root / "recipe.yml", document(root, eta)))
    names = found.base.names
    assert len(calls) == (1 if eta == 0.5 else len(names))  # per weight only where they differ
    for name in names:
        found.parts(name)
        found.changes(name)
        found.dense_inputs(name)
    assert len(calls) == (1 if eta == 0.5 else len(names))


def test_an_eta_that_some_weight_lacks_is_found_at_once(root: Path) -> None:
    path = written(root / "r.yml", document(root, [{"filter": "mlp", "value": 1.0}]))
    (finding,) = [item for item in check(path) if item.level == "error"]
    assert finding.topic is Topic.ETA
    assert "helpful: none of its inputs has an eta" in finding.text
    with pytest.raises(PvMergeError, match="none of its inputs has an eta") as caught:
        open_recipe(path)
    assert caught.value.topic is Topic.ETA


# ---- where the header says that a tensor is ------------------------------------------------------


def test_places_are_those_that_the_header_says(tmp_path: Path) -> None:
    tensors = {
        "z": torch.arange(6, dtype=torch.float64).view(2, 3),
        "a": torch.arange(5, dtype=torch.uint8),
        "nothing": torch.empty(0, 4),
        "half": torch.randn(3, 3).half(),
        "brain": torch.randn(7).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "one": torch.tensor(2.5),
        "long": torch.tensor([2**40, -1]),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    file = WeightsFile(path)
    for name, tensor in tensors.items():
        begin, end = header[name]["data_offsets"]
        info = file.infos[name]
        assert (info.dtype, list(info.shape)) == (header[name]["dtype"], header[name]["shape"])
        assert begin == end or info.offset == 8 + length + begin, name
        assert torch.equal(file.tensor(name), tensor)
    assert list(file.infos) == sorted(tensors)


def test_eight_bit_floats_take_a_byte_and_are_not_merged(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(4).to(torch.float8_e4m3fn), "c": torch.arange(3.0)}
    save_file(tensors, tmp_path / "model.safetensors")
    file = WeightsFile(tmp_path / "model.safetensors")
    assert torch.equal(file.tensor("c"), tensors["c"])
    with pytest.raises(PvMergeError, match="b is stored as F8_E4M3, which cannot be merged"):
        file.tensor("b")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    import os

    save(tiny(), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "m" / "model.safetensors")
    with pytest.raises(PvMergeError, match=r"model\.safetensors: is not an ordinary file"):
        _ = Checkpoint(tmp_path / "m").infos
