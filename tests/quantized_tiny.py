"""Tiny checkpoints that the libraries of quantized formats have written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from models import Model, load, save, state, tiny

SIZES = {"hidden_size": 64, "intermediate_size": 128}


def small(seed: int = 0) -> Model:
    """Return a model whose layers divide into groups and blocks of 32."""
    return tiny(seed=seed, **SIZES)


def is_linear(name: str) -> bool:
    """Return whether a weight is that of a linear layer inside the layers."""
    return name.endswith("_proj.weight")


def write(
    folder: Path, base: str, tensors: Mapping[str, Tensor], config: dict[str, Any] | None
) -> str:
    """Write a checkpoint with the base's config and a ``quantization_config``."""
    folder.mkdir(parents=True)
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((Path(base) / "config.json").read_text())
    if config is not None:
        said["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(said))
    return str(folder)


def fp8_blocks(folder: Path, base: str, size: tuple[int, int] = (32, 32)) -> str:
    """Quantize into fp8 with a scale for each block, by transformers' own operation."""
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = FineGrainedFP8Config(weight_block_size=size)
    operation = Fp8Quantize(SimpleNamespace(quantization_config=config))
    tensors: dict[str, Tensor] = {}
    for name, tensor in state(base).items():
        tensors |= operation.convert({name: tensor}) if is_linear(name) else {name: tensor}
    said = {"quant_method": "fp8", "weight_block_size": list(size), "activation_scheme": "dynamic"}
    return write(folder, base, tensors, {**said, "modules_to_not_convert": ["lm_head"]})


COMPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "int4": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32}),
    "int4 with zero points": (
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False},
    ),
    "int8": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "fp8": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "fp8 by block": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 32]},
    ),
}


def compressed(folder: Path, base: str, kind: str) -> str:
    """Quantize by compressed-tensors' own compressor, with scales of the largest values."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils.helpers import calculate_qparams

    form, said = COMPRESSED[kind]
    args = QuantizationArgs(**said)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)
    compressor = BaseCompressor.get_value_from_registry(form)
    tensors: dict[str, Tensor] = {}
    for name, tensor in state(base).items():
        if not is_linear(name):
            tensors[name] = tensor
            continue
        low, high = _ranges(tensor, said)
        scale, zero = calculate_qparams(low, high, args)
        module = name.removesuffix(".weight")
        held = {"weight": tensor, "weight_scale": scale}
        if not said.get("symmetric", True):
            held["weight_zero_point"] = zero
        packed = compressor.compress(held, scheme)
        tensors |= {f"{module}.{key}": value for key, value in packed.items()}
    group = {"targets": ["Linear"], "weights": args.model_dump(mode="json"), "format": form}
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }
    return write(folder, base, tensors, config)


def _ranges(weight: Tensor, said: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    if said["strategy"] == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if said["strategy"] == "group":
        groups = weight.reshape(weight.shape[0], -1, said["group_size"])
        return groups.amin(2), groups.amax(2)
    rows, columns = said["block_structure"]
    blocks = weight.reshape(weight.shape[0] // rows, rows, -1, columns)
    return blocks.amin((1, 3)), blocks.amax((1, 3))


def by_auto_round(folder: Path, base: str, form: str, **said: Any) -> str:
    """Quantize by auto-round, rounding to nearest, into ``auto_gptq``, ``auto_awq`` and so on."""
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    from train_tiny import save_base

    tokenizer = AutoTokenizer.from_pretrained(save_base(folder / "tokenizer"))
    scheme = {"scheme": "W4A16", "group_size": 32, **said}
    rounding = {"iters": 0, "disable_opt_rtn": True, "nsamples": 2, "seqlen": 8}
    AutoRound(load(base), tokenizer, device_map="cpu", **rounding, **scheme).quantize_and_save(
        str(folder / "out"), format=form
    )
    (config,) = (folder / "out").rglob("config.json")
    shutil.rmtree(folder / "tokenizer")
    return str(config.parent)


def base_of(root: Path) -> str:
    """Write the model that all of them are made of."""
    return save(small(), root / "base")
