"""LoRA adapters: reads a PEFT adapter folder, and gives each weight's change exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import dtype_named
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Checkpoint
from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError

PREFIX = "base_model.model."


class Adapter:
    """A folder that PEFT wrote for a LoRA adapter.

    Raises ``PvMergeError`` for kinds of adapter whose change is not ``scale · B @ A``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / ADAPTER_CONFIG).exists():
            raise PvMergeError(f"{folder}: holds no {ADAPTER_CONFIG}, so it is not an adapter")
        if not (self.folder / ADAPTER_WEIGHTS).exists():
            raise PvMergeError(
                f"{folder}: holds no {ADAPTER_WEIGHTS}; was the adapter saved as a pickle?"
            )
        self._refuse_other_kinds()

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The adapter's ``adapter_config.json``."""
        config: dict[str, Any] = read_object(self.folder / ADAPTER_CONFIG)
        return config

    @property
    def base_model(self) -> str | None:
        """The base that the adapter's config names."""
        name = self.config.get("base_model_name_or_path")
        return str(name) if name else None

    def _refuse_other_kinds(self) -> None:
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise PvMergeError(f"{self.folder}: is a {kind} adapter; only LoRA can be subtracted")
        for key in ("use_dora", "use_qalora", "lora_bias"):
            if self.config.get(key):
                raise PvMergeError(
                    f"{self.folder}: uses {key}, which is not a plain B @ A; merge it first"
                )

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.folder / ADAPTER_WEIGHTS)
        except SafetensorError as error:
            raise PvMergeError(
                f"{self.folder / ADAPTER_WEIGHTS}: not a whole safetensors file ({error})"
            ) from None

    @cached_property
    def modules(self) -> dict[str, LowRank]:
        """The change of each adapted module, by the module's name in the base model."""
        found: dict[str, LowRank] = {}
        used: set[str] = set()
        for key in sorted(self._tensors):
            if not key.endswith(".lora_A.weight") and not key.endswith(".lora_embedding_A"):
                continue
            embedding = key.endswith(".lora_embedding_A")
            other = (
                key.replace("lora_embedding_A", "lora_embedding_B")
                if embedding
                else key.replace(".lora_A.", ".lora_B.")
            )
            if other not in self._tensors:
                raise PvMergeError(f"{self.folder}: {key} has no {other}; is the file whole?")
            module = key.removeprefix(PREFIX).rpartition(".lora_")[0]
            used |= {key, other}
            # An embedding's A and B are stored for a lookup: its weight changes by (B @ A)ᵀ.
            found[module] = LowRank(
                self._tensors[key],
                self._tensors[other],
                self._scale(module),
                embedding or bool(self.config.get("fan_in_fan_out")),
                embedding,
            )
        rest = sorted(set(self._tensors) - used)
        if rest:
            raise PvMergeError(
                f"{self.folder}: also holds {rest[0]}, which is not low-rank "
                "(modules_to_save, trainable tokens or bias); merge the adapter into a checkpoint first"
            )
        if not found:
            raise PvMergeError(f"{self.folder}: holds no LoRA weights")
        return found

    def _scale(self, module: str) -> float:
        rank = _pattern(self.config.get("rank_pattern") or {}, module, self.config["r"])
        alpha = _pattern(self.config.get("alpha_pattern") or {}, module, self.config["lora_alpha"])
        return float(alpha / rank**0.5 if self.config.get("use_rslora") else alpha / rank)


def _pattern(patterns: dict[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that matches, as PEFT matches them."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def weight_name(module: str) -> str:
    """Return the name of a module's weight in a checkpoint."""
    return f"{module}.weight"


def peft_tensors(
    changes: Mapping[str, LowRank], rank: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the tensors of an adapter file by PEFT's names; ``changes`` is by name of weight.

    Every module gets ``rank``, padded with zeros, and scale 1 (it goes into B), since engines know
    neither a rank nor a scale of each module's own.
    """
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


def peft_config(
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


def write_low_rank(
    work: Path, changes: dict[str, LowRank], base: Checkpoint, base_name: str, dtype: str
) -> int:
    """Write an adapter that PEFT and vLLM load as it is, and return its rank.

    All modules get one rank, the largest, padded with zeros, and scale 1, since vLLM knows neither
    a rank nor a scale of each module's own.
    """
    from safetensors.torch import save_file

    rank = max(change.a.shape[0] for change in changes.values())
    transposed = stores_transposed(base)
    held = {
        name: change if change.embedding else change.stored(transposed)
        for name, change in changes.items()
    }
    tensors = peft_tensors(held, rank, dtype_named(dtype))
    save_file(tensors, work / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = peft_config(rank, base_name, target_modules(changes, base), transposed)
    write_json(work / ADAPTER_CONFIG, config)
    return rank


def stores_transposed(base: Checkpoint) -> bool:
    """Return whether the model's linear layers are Conv1D, which store their weight as (in, out)."""
    return base.config.get("model_type") in ("gpt2", "openai-gpt")


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
