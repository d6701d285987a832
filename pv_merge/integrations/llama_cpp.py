"""Export for llama.cpp: one GGUF adapter for each preference, whose scale at run time is its η."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.integrations.export import (
    Advance,
    ExportOptions,
    ExportTarget,
    Manifest,
    measures,
    rank_text,
    refuse_rank,
)
from pv_merge.merging.mix import alone, low_rank_mix, nonlinear_controls
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.recipe import Recipe


def _check(opened: OpenRecipe, options: ExportOptions) -> None:
    recipe = opened.recipe
    gguf_family(opened.base.config, recipe.base_model)
    separate = [] if options.mix else _scale_problems(recipe) + _name_problems(recipe)
    raise_all(nonlinear_controls(recipe) + separate)


def _write(
    opened: OpenRecipe, work: Path, options: ExportOptions, manifest: Manifest, advance: Advance
) -> None:
    if options.mix:
        _write_mix(opened, work, options, manifest, advance)
        return
    names = opened.recipe.preferences
    for number, name in enumerate(names):

        def moved(done: int, total: int, before: int = number) -> None:
            advance(before * total + done, len(names) * total)

        mix = low_rank_mix(opened, alone(opened.recipe, name), options.rank, moved)
        refuse_rank(mix, name, options)
        file = f"{name}.gguf"
        write_gguf(work / file, name, mix.changes, opened.base.config, options.dtype)
        manifest["preferences"][name] |= {"file": file, **measures(mix)}


def _write_mix(
    opened: OpenRecipe, work: Path, options: ExportOptions, manifest: Manifest, advance: Advance
) -> None:
    """Write the whole mix as one adapter, eta baked in: Ollama takes one, and knows no scale."""
    mix = low_rank_mix(opened, rank=options.rank, advance=advance)
    refuse_rank(mix, str(opened.recipe.path), options)
    write_gguf(work / MIX, "mix", mix.changes, opened.base.config, options.dtype)
    manifest |= {"file": MIX, **measures(mix)}
    modelfile = (
        f"# the base model as GGUF, or its name in Ollama\nFROM ./BASE.gguf\nADAPTER ./{MIX}\n"
    )
    (work / "Modelfile").write_text(modelfile, encoding="utf-8")


def _usage(manifest: Manifest, folder: str) -> list[str]:
    if "file" in manifest:
        return [
            f"the whole mix in {folder}/{manifest['file']}, {rank_text(manifest)}",
            f"  llama-server -m BASE.gguf --lora {folder}/{manifest['file']}",
            f"  put the base into {folder}/Modelfile, then: ollama create mine -f {folder}/Modelfile",
        ]
    lines = [
        f"{name}: {folder}/{said['file']}, {rank_text(said)}"
        for name, said in manifest["preferences"].items()
    ]
    return lines + [f"  {line}" for line in llama_commands(manifest, folder)]


MIX = "mix.gguf"

GGUF = ExportTarget(
    "one adapter for each vector, for llama.cpp", _write, _check, _usage, takes=frozenset({"mix"})
)


def llama_commands(manifest: Mapping[str, Any], folder: str) -> list[str]:
    """Return the server's command line with the recipe's etas, and a request with others."""
    said = manifest["preferences"].values()
    scaled = ",".join(f"{Path(folder) / item['file']}:{item['eta']:g}" for item in said)
    lora = [{"id": number, "scale": item["eta"]} for number, item in enumerate(said)]
    request = {"prompt": "…", "lora": lora}
    return [
        f"llama-server -m BASE.gguf --lora-scaled {scaled}",
        f"curl http://localhost:8080/completion -d '{json.dumps(request, ensure_ascii=False)}'",
    ]


def _scale_problems(recipe: Recipe) -> list[str]:
    return [
        f"{recipe.path}: eta of {name} differs between weights, and llama.cpp has one scale for a whole "
        "adapter; use --to peft"
        for name, eta in recipe.etas.items()
        if eta is None
    ]


def _name_problems(recipe: Recipe) -> list[str]:
    return [
        f"{recipe.path}: preference {name!r} cannot be the name of a file for llama.cpp; use letters, "
        "digits, - and _"
        for name in recipe.preferences
        if not re.fullmatch(r"\w[\w.-]*", name)
    ]


class GgufFamily(NamedTuple):
    """What llama.cpp makes of a family of models."""

    architecture: str
    """The GGUF's ``general.architecture``."""
    permuted: bool
    """Whether its converter reorders the rows of q and k, for rotary positions in pairs."""


GGUF_FAMILIES = {
    "llama": GgufFamily("llama", True),
    "mistral": GgufFamily("llama", True),
    "qwen2": GgufFamily("qwen2", False),
    "qwen3": GgufFamily("qwen3", False),
}
"""Supported values of ``model_type``."""


def gguf_family(config: Mapping[str, Any], where: str) -> GgufFamily:
    """Return the family of a model's config; ``PvMergeError`` for one that is not supported."""
    kind = config.get("model_type")
    if kind not in GGUF_FAMILIES:
        raise PvMergeError(
            f"{where}: is a {kind} model; GGUF adapters are made for {', '.join(GGUF_FAMILIES)} only. "
            "Merge it with pv-merge run and convert the merged model instead"
        )
    return GGUF_FAMILIES[str(kind)]


def paired_rows(matrix: Tensor, heads: int) -> Tensor:
    """Return the rows of q or k as llama.cpp wants them: i and i + d/2 of each head side by side.

    transformers rotates the two halves of a head of d rows against each other, llama.cpp
    neighbouring rows. ``matrix`` is (heads · d, any): a weight, or the B of its LoRA.
    """
    halves = matrix.reshape(heads, 2, -1, *matrix.shape[1:])
    return halves.transpose(1, 2).reshape(matrix.shape)


def gguf_tensors(
    changes: Mapping[str, LowRank], config: Mapping[str, Any], where: str
) -> dict[str, Tensor]:
    """Return A and B of each weight in float32 under llama.cpp's names, all of one rank and scale 1.

    Raises ``PvMergeError`` for a weight that llama.cpp has no LoRA of.
    """
    import gguf

    family = gguf_family(config, where)
    architecture = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family.architecture]
    names = gguf.get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
    heads = int(config["num_attention_heads"])
    rows = {"q_proj": heads, "k_proj": int(config.get("num_key_value_heads") or heads)}
    rank = max(change.a.shape[0] for change in changes.values())
    tensors = {}
    for name, change in sorted(changes.items()):
        module = name.removesuffix(".weight")
        short = names.get_name(module)
        if change.embedding or short is None or short == "token_embd":
            raise PvMergeError(
                f"{where}: changes {name}, which is no linear layer of llama.cpp's {family.architecture}; "
                "merge it with pv-merge run and convert the merged model instead"
            )
        change = change.stored(False)
        a, b = change.a.float(), change.b.float() * change.scale
        leaf = module.rpartition(".")[2]
        if family.permuted and leaf in rows:
            b = paired_rows(b, rows[leaf])
        lack = rank - a.shape[0]
        # llama.cpp scales by alpha / rank with one alpha for all, so all get one rank.
        tensors[f"{short}.weight.lora_a"] = torch.nn.functional.pad(a, (0, 0, 0, lack))
        tensors[f"{short}.weight.lora_b"] = torch.nn.functional.pad(b, (0, lack))
    return tensors


def write_gguf(
    path: Path,
    name: str,
    changes: Mapping[str, LowRank],
    config: Mapping[str, Any],
    dtype: str = "float32",
) -> int:
    """Write one adapter as a GGUF file and return its rank.

    Its alpha is its rank, so that llama.cpp's scale is η itself. ``name`` is its ``general.name``.
    """
    import gguf

    tensors = gguf_tensors(changes, config, name)
    kind = {
        "float32": gguf.GGMLQuantizationType.F32,
        "float16": gguf.GGMLQuantizationType.F16,
        "bfloat16": gguf.GGMLQuantizationType.BF16,
    }[dtype]
    rank = max(tensor.shape[0] for key, tensor in tensors.items() if key.endswith(".lora_a"))
    writer = gguf.GGUFWriter(path, gguf_family(config, name).architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    writer.add_name(name)
    for key, tensor in tensors.items():
        data = gguf.quants.quantize(tensor.contiguous().numpy(), kind)
        writer.add_tensor(key, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rank
