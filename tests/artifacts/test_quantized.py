"""Weights out of quantized checkpoints that the formats' own libraries have written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from quantized_tiny import (
    COMPRESSED,
    base_of,
    by_auto_round,
    compressed,
    fp8_blocks,
    is_linear,
    write,
)
from safetensors.torch import load_file
from torch import Tensor

from pv_merge.artifacts.quantized import unpacking
from pv_merge.artifacts.quantized.dequantize import dequantize
from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.merging.extract import ExtractOptions, extract
from pv_merge.merging.run import run
from pv_merge.recipe.opening import check

from models import largest_difference, load, logits, mergekit_yaml, perturbed, recipe, save, state

pytest.importorskip("compressed_tensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quantized")
    base_of(root)
    return root


@pytest.fixture(scope="module")
def rounded(root: Path) -> dict[str, str]:
    """The same model by auto-round: GPTQ, AWQ, with and without symmetric levels."""
    pytest.importorskip("auto_round")
    base = str(root / "base")
    return {
        "gptq": by_auto_round(root / "gptq", base, "auto_gptq"),
        "gptq, 8 bits": by_auto_round(root / "gptq8", base, "auto_gptq", scheme="W8A16"),
        "gptq, asymmetric": by_auto_round(root / "gptq-a", base, "auto_gptq", sym=False),
        "awq": by_auto_round(root / "awq", base, "auto_awq"),
        "awq, asymmetric": by_auto_round(root / "awq-a", base, "auto_awq", sym=False),
    }


def unpacked(source: str, folder: Path, dtype: str = "float32") -> dict[str, Tensor]:
    dequantize(source, folder, dtype)
    return state(folder)


def assert_near(found: dict[str, Tensor], base: str, steps: int) -> None:
    """Every weight is within a step of the original, ``steps`` spanning the range.

    Half a step by rounding; auto-round's symmetric levels cut off the largest value by up to one.
    """
    original = state(base)
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        error = (found[name].float() - tensor).abs()
        limit = 2 * float(tensor.abs().max()) / steps if is_linear(name) else 0.0
        assert float(error.max()) <= limit * 1.1 + 1e-7, name
        assert not is_linear(name) or float(error.max()) > 0


# ---- each format ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_fp8_blocks_as_transformers_loads_them(
    size: tuple[int, int], root: Path, tmp_path: Path
) -> None:
    source = fp8_blocks(tmp_path / "fp8", str(root / "base"), size)
    found = unpacked(source, tmp_path / "full")
    by_transformers = load(source)  # without a GPU it dequantizes as well
    for name, tensor in by_transformers.state_dict().items():
        assert largest_difference(found[name], tensor) < 1e-6, name
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_tensors_as_transformers_loads_them(
    kind: str, root: Path, tmp_path: Path
) -> None:
    source = compressed(tmp_path / "packed", str(root / "base"), kind)
    found = unpacked(source, tmp_path / "full")
    steps = {"int4": 15, "int4 with zero points": 15, "int8": 255, "fp8": 20, "fp8 by block": 20}
    assert_near(found, str(root / "base"), steps[kind])
    assert largest_difference(logits(tmp_path / "full"), by_transformers(source)) < 2e-5


def by_transformers(source: str) -> Tensor:
    import transformers

    said = transformers.CompressedTensorsConfig(run_compressed=False)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, quantization_config=said
    )
    return logits(model.eval())


@pytest.mark.slow
def test_gptq_and_awq_hold_the_same_levels(rounded: dict[str, str], root: Path) -> None:
    """One rounding in two layouts, each unpacked by its own code: equal weights, near the original."""
    found = {name: unpacked(path, root / f"full-{name}") for name, path in rounded.items()}
    for name, weights in found.items():
        assert_near(weights, str(root / "base"), 255 if "8 bits" in name else 15)
    for left, right in (("gptq", "awq"), ("gptq, asymmetric", "awq, asymmetric")):
        for name, tensor in found[left].items():
            assert torch.equal(tensor, found[right][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gptq", "gptq, 8 bits", "gptq, asymmetric"])
def test_gptq_as_auto_rounds_layer_computes_it(
    kind: str, rounded: dict[str, str], tmp_path: Path
) -> None:
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    bits = 8 if "8 bits" in kind else 4
    source = rounded[kind]
    packed, found = state(source), unpacked(source, tmp_path / "full")
    module = "model.layers.1.mlp.up_proj"
    layer = QuantLinear(bits, 32, 64, 128, bias=False)
    for part in ("qweight", "qzeros", "scales"):
        setattr(layer, part, packed[f"{module}.{part}"])
    layer.scales = layer.scales.float()
    theirs = layer(torch.eye(64)).T
    assert largest_difference(found[f"{module}.weight"], theirs) < 1e-7


@pytest.mark.slow
def test_gptq_of_the_second_version_and_of_reordered_groups(
    rounded: dict[str, str], tmp_path: Path
) -> None:
    """gptq_v2 stores zero points as they are; g_idx says which group a column is in."""
    source = rounded["gptq"]
    plain = unpacked(source, tmp_path / "plain")
    tensors = state(source)
    for name in [key for key in tensors if key.endswith("qzeros")]:
        tensors[name] = tensors[name] + 0x11111111  # each of eight nibbles up by one
        module = name.removesuffix(".qzeros")
        columns = tensors[f"{module}.qweight"].shape[0] * 8
        tensors[f"{module}.g_idx"] = (torch.arange(columns) // 32).int()
    said = {**config_of(source), "checkpoint_format": "gptq_v2", "desc_act": True}
    second = unpacked(write(tmp_path / "v2", source, tensors, said), tmp_path / "full")
    for name, tensor in plain.items():
        assert torch.equal(tensor, second[name]), name


def config_of(folder: str) -> dict[str, Any]:
    config = json.loads((Path(folder) / "config.json").read_text())
    said: dict[str, Any] = config["quantization_config"]
    return said


# ---- into the merge ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vector(root: Path) -> str:
    from quantized_tiny import small

    for seed, name in ((1, "positive"), (2, "negative")):
        save(perturbed(small(), seed, 0.01), root / name)
    options = ExtractOptions(str(root / "base"), "polite")
    extract(root / "positive", root / "negative", root / "vector", options)
    return str(root / "vector")


def document(base: str, vector: str) -> dict[str, Any]:
    said = {"preference": "polite", "polarity": "vector", "eta": 0.5}
    return recipe(base, [(vector, said)], {"allow_related_base": True})


@pytest.mark.parametrize("kind", ["fp8 blocks", "int4"])
def test_a_quantized_base_is_unpacked_into_the_merge(
    kind: str, root: Path, vector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run makes the copy once, in the cache; the merge is that of the copy, bit for bit."""
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    base = str(root / "base")
    if kind == "int4":
        source = compressed(tmp_path / "packed", base, "int4")
    else:
        source = fp8_blocks(tmp_path / "packed", base)
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(document(source, vector)))
    (found,) = (item for item in check(path) if "is quantized with" in item.text)
    assert found.level == "warning" and "only then the rest can be checked" in found.text
    told: list[str] = []
    run(path, tmp_path / "out", found=lambda items: told.extend(item.text for item in items))
    assert any("it is merged as unpacked in" in line for line in told)
    assert any("The two are related" in line for line in told)
    dequantize(source, tmp_path / "full")
    full, phi = state(tmp_path / "full"), state(vector)
    for name, tensor in state(tmp_path / "out").items():
        expected = full[name].double() + 0.5 * phi[name].double()
        assert largest_difference(tensor, expected) < 1e-6, name
    copies = list((tmp_path / "cache" / "dequantized").iterdir())
    assert len(copies) == 1
    run(path, tmp_path / "again")
    assert list((tmp_path / "cache" / "dequantized").iterdir()) == copies
    load(tmp_path / "out")


def test_mergekit_names_the_way(root: Path, vector: str, tmp_path: Path) -> None:
    source = compressed(tmp_path / "packed", str(root / "base"), "int8")
    with pytest.raises(AssertionError, match=r"Error: .*pv-merge dequantize"):
        mergekit_yaml(document(source, vector), tmp_path / "out")


def test_extract_names_the_way(root: Path, tmp_path: Path) -> None:
    source = compressed(tmp_path / "packed", str(root / "base"), "int8")
    sides = (root / "positive", root / "negative")
    with pytest.raises(PvMergeError, match="is quantized with compressed-tensors; name its copy"):
        extract(*sides, tmp_path / "v", ExtractOptions(source, "polite"))


def test_the_command(root: Path, tmp_path: Path) -> None:
    source = compressed(tmp_path / "packed", str(root / "base"), "fp8")
    result = CliRunner().invoke(main, ["dequantize", source, "-o", str(tmp_path / "full")])
    assert result.exit_code == 0, result.output
    assert "M parameters in bfloat16" in result.stdout
    assert {tensor.dtype for tensor in state(tmp_path / "full").values()} == {torch.bfloat16}


# ---- what cannot be had --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes quantizes while it"),
        ({"load_in_4bit": True}, "is quantized with bitsandbytes"),
        ({"quant_method": "mxfp4"}, r"MXFP4 \(gpt-oss\) fuses its experts"),
        ({"quant_method": "quip"}, "is quantized with quip"),
        ({"bits": 4}, "is quantized with unknown"),
    ],
)
def test_other_formats_name_the_adapter_route(
    config: dict[str, Any], line: str, root: Path, vector: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "other", str(root / "base"), state(root / "base"), config)
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(document(source, vector)))
    for act in (lambda: run(path, tmp_path / "out"), lambda: dequantize(source, tmp_path / "out")):
        with pytest.raises(PvMergeError, match=line) as caught:
            act()
        assert "pv-merge export --to peft" in caught.value.message
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "lost", "line"),
    [
        ("fp8 blocks", "weight_scale_inv", "is stored as F8_E4M3 and has no scale"),
        ("int4", "weight_scale", "cannot be unpacked"),
        ("int4", "weight_packed", "and no weight; is the file whole"),
        ("int4", "weight_shape", "cannot be unpacked"),
        ("int8", "weight_scale", "is stored as I8 and has no scale"),
        ("int4 with zero points", "weight_zero_point", "cannot be unpacked"),
    ],
)
def test_quantized_tensors_without_their_scales(
    kind: str, lost: str, line: str, root: Path, tmp_path: Path
) -> None:
    base = str(root / "base")
    whole = tmp_path / "whole"
    source = fp8_blocks(whole, base) if kind == "fp8 blocks" else compressed(whole, base, kind)
    tensors = load_file(Path(source) / "model.safetensors")
    del tensors[f"model.layers.1.mlp.up_proj.{lost}"]
    broken = write(tmp_path / "broken", base, tensors, config_of(source))
    with pytest.raises(PvMergeError, match=line) as caught:
        dequantize(broken, tmp_path / "out")
    assert "model.layers.1.mlp.up_proj" in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weight_block_size": None}, "weight_block_size is None"),
        ({"weight_block_size": [48, 32]}, "cannot be unpacked"),
    ],
)
def test_settings_that_do_not_fit(
    changes: dict[str, Any], line: str, root: Path, tmp_path: Path
) -> None:
    source = fp8_blocks(tmp_path / "fp8", str(root / "base"))
    tensors = load_file(Path(source) / "model.safetensors")
    broken = write(tmp_path / "broken", source, tensors, {**config_of(source), **changes})
    with pytest.raises(PvMergeError, match=line):
        dequantize(broken, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"quant_method": "gptq", "bits": 3}, "gptq: bits is 3; 2, 4 and 8 are unpacked"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ({"quant_method": "awq", "bits": 8}, "awq: AutoAWQConverter currently supports only 4-bit"),
        ({"quant_method": "awq", "version": "GEMV"}, "awq: Unsupported AutoAWQ version: gemv"),
    ],
)
@pytest.mark.slow
def test_layouts_that_are_not_known(
    changes: dict[str, Any], line: str, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("auto_round")
    source = write(tmp_path / "other", str(root / "base"), state(root / "base"), changes)
    with pytest.raises(PvMergeError, match=line):
        dequantize(source, tmp_path / "out")


def test_a_library_that_is_not_installed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = compressed(tmp_path / "packed", str(root / "base"), "int4")

    def absent(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'compressed_tensors'", name="compressed_tensors")

    monkeypatch.setattr(unpacking, "_compressed_tensors", absent)
    with pytest.raises(PvMergeError, match=r"compressed_tensors is not installed, .* pip install"):
        dequantize(source, tmp_path / "out")


def test_a_model_that_is_not_quantized(root: Path, tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="is not quantized"):
        dequantize(root / "base", tmp_path / "out")


def test_shards_do_not_show(root: Path, tmp_path: Path) -> None:
    """A weight and its scale in two files."""
    source = Path(fp8_blocks(tmp_path / "one", str(root / "base")))
    tensors = load_file(source / "model.safetensors")
    parts = [{k: v for k, v in tensors.items() if k.endswith("_inv") == side} for side in (0, 1)]
    shutil.copytree(source, tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").unlink()
    from safetensors.torch import save_file

    listed = {}
    for number, part in enumerate(parts):
        file = f"model-{number}.safetensors"
        save_file(part, tmp_path / "two" / file, metadata={"format": "pt"})
        listed |= dict.fromkeys(part, file)
    index = tmp_path / "two" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    first, second = (unpacked(str(tmp_path / n), tmp_path / f"{n}-full") for n in ("one", "two"))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
