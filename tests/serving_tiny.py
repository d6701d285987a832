"""A tiny base, a folder of low-rank vectors over it, and a stand-in for vLLM."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

from pv_merge import PreferenceVector
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.integrations.mixes.settings import Settings

import models

RANKS = {"helpful": 2, "polite": 3, "harmless": 1}
"""Rank of each vector; they move different weights, and harmless is protected by its name."""

MODULES = {
    "helpful": ("q_proj", "v_proj", "down_proj"),
    "polite": ("q_proj", "k_proj", "down_proj"),
    "harmless": ("v_proj", "gate_proj"),
}


def write_vectors(root: Path) -> tuple[str, Path]:
    """Write a base and the three vectors; return the base's folder and that of the vectors."""
    base = models.save(models.tiny(), root / "base")
    checkpoint = Checkpoint(base)
    sha = weights_hash(checkpoint)
    for seed, (name, rank) in enumerate(RANKS.items()):
        draw = torch.Generator().manual_seed(seed)
        changes: dict[str, Any] = {}
        for weight, info in checkpoint.infos.items():
            if weight.split(".")[-2] in MODULES[name]:
                out, into = info.shape
                changes[weight] = LowRank(
                    torch.randn(rank, into, generator=draw) * 0.1,
                    torch.randn(out, rank, generator=draw) * 0.1,
                    0.5,
                )
        manifest = {"base": {"path": base, "weights_sha256": sha}}
        PreferenceVector(name, changes, manifest).save(root / "vectors" / name)
    return base, root / "vectors"


def settings(vectors: Path, **changes: Any) -> Settings:
    """Return settings for a folder."""
    return Settings(vectors=vectors, **changes)


class LoRARequest:
    """Stands for vLLM's, whose fields can be set."""

    def __init__(self, lora_name: str, lora_int_id: int, lora_path: str = "") -> None:
        object.__setattr__(self, "lora_name", lora_name)
        object.__setattr__(self, "lora_int_id", lora_int_id)
        object.__setattr__(self, "lora_path", lora_path)


class Registry:
    """Stands for ``LoRAResolverRegistry``."""

    def __init__(self) -> None:
        self.resolvers: dict[str, Any] = {}

    def register_resolver(self, name: str, resolver: Any) -> None:
        self.resolvers[name] = resolver


class WorkerLoRAManager:
    """Stands for vLLM's worker: loads a folder, and remembers what it loaded."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, int, dict[str, torch.Tensor]]] = []

    def _load_adapter(self, request: Any) -> str:
        from safetensors.torch import load_file

        tensors = load_file(Path(request.lora_path) / "adapter_model.safetensors")
        self.loaded.append((request.lora_name, request.lora_int_id, tensors))
        return str(request.lora_path)


def fake_vllm(monkeypatch: Any) -> Registry:
    """Put a stand-in for vLLM where imports find it, and forget what was imported with another."""
    registry = Registry()
    modules: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.lora.resolver": {"LoRAResolver": object, "LoRAResolverRegistry": registry},
        "vllm.lora.worker_manager": {
            "WorkerLoRAManager": type("WorkerLoRAManager", (WorkerLoRAManager,), {})
        },
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    manager = modules["vllm.lora.worker_manager"]["WorkerLoRAManager"]
    manager._load_adapter = WorkerLoRAManager._load_adapter
    for name in ("resolver", "request"):
        monkeypatch.delitem(sys.modules, f"pv_merge.integrations.vllm.{name}", raising=False)
    return registry


def clear_environment(monkeypatch: Any) -> None:
    """Unset every variable of the plugin but the cache's."""
    for name in list(os.environ):
        if name == "PV_MERGE_VECTORS" or name.startswith("PV_MERGE_SERVE_"):
            monkeypatch.delenv(name)
