"""A folder that PEFT and serving engines load as a LoRA adapter: the one writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import dtype_named
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter import PREFIX, stores_transposed
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pv_merge.artifacts.tensor_files import save_tensors


def write_low_rank(
    work: Path, changes: Mapping[str, LowRank], base: Checkpoint, base_name: str, dtype: str
) -> int:
    """Write changes of a checkpoint's weights as an adapter over it, and return its rank."""
    held = {
        name: change if change.embedding else change.stored(stores_transposed(base, name))
        for name, change in changes.items()
    }
    return write_adapter(
        work,
        held,
        base_name,
        target_modules(changes, base),
        transposed=stores_transposed(base),
        dtype=dtype_named(dtype),
    )


def write_adapter(
    work: Path,
    changes: Mapping[str, LowRank],
    base_name: str | None,
    targets: list[str],
    *,
    transposed: bool,
    dtype: torch.dtype,
) -> int:
    """Write ``changes``, by name of weight, into an existing folder, and return their rank.

    All modules get one rank, the largest, padded with zeros, and scale 1 (it goes into B), since
    engines know neither a rank nor a scale of each module's own.
    """
    rank = max(change.a.shape[0] for change in changes.values())
    save_tensors(_tensors(changes, rank, dtype), work / ADAPTER_WEIGHTS)
    write_json(work / ADAPTER_CONFIG, _config(rank, base_name, targets, transposed))
    return rank


def target_modules(names: Iterable[str], base: Checkpoint) -> list[str]:
    """Return the modules as PEFT wants them: last names if those mean just these, else in full."""
    modules = {name.removesuffix(".weight") for name in names}
    leaves = {module.rpartition(".")[2] for module in modules}
    meant = {
        name.removesuffix(".weight")
        for name in base.names
        if name.endswith(".weight") and name.removesuffix(".weight").rpartition(".")[2] in leaves
    }
    return sorted(leaves if meant == modules else modules)


def _tensors(changes: Mapping[str, LowRank], rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of an adapter file by PEFT's names."""
    tensors = {}
    for name, change in changes.items():
        module = f"{PREFIX}{name.removesuffix('.weight')}"
        first, second = (
            ("lora_embedding_A", "lora_embedding_B")
            if change.embedding
            else ("lora_A.weight", "lora_B.weight")
        )
        a, b = change.a.float(), change.b.float()
        lack = rank - a.shape[0]
        if lack:
            a, b = (
                torch.nn.functional.pad(a, (0, 0, 0, lack)),
                torch.nn.functional.pad(b, (0, lack)),
            )
        tensors[f"{module}.{first}"] = a.to(dtype).contiguous()
        scaled = b if change.scale == 1 else b * change.scale
        tensors[f"{module}.{second}"] = scaled.to(dtype).contiguous()
    return tensors


def _config(
    rank: int, base: str | None, target_modules: list[str], fan_in_fan_out: bool
) -> dict[str, Any]:
    """Return the ``adapter_config.json`` of an adapter of one rank and scale 1."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "target_modules": target_modules,
    }
