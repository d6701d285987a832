"""LoRA policies for tests: adapters with random weights, saved by PEFT itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import torch

from models import Model

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(model: Model, seed: int, **said: Any) -> peft.PeftModel:
    """Return a copy of the model with a LoRA adapter whose A and B are both random."""
    usual: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR}
    config = peft.LoraConfig(**{**usual, "task_type": "CAUSAL_LM", **said})
    policy = peft.get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return policy.eval()


def save_adapter(policy: peft.PeftModel, folder: Path, base: str) -> str:
    """Save as an adapter folder whose config names the base."""
    policy.peft_config["default"].base_model_name_or_path = base
    policy.save_pretrained(str(folder), save_embedding_layers=False)
    return str(folder)


def merged(policy: peft.PeftModel) -> Model:
    """Return the policy with its adapter merged in by PEFT."""
    model: Model = copy.deepcopy(policy).merge_and_unload()
    return model.eval()


def say(folder: str, **manifest: Any) -> None:
    """Write a training manifest into a policy's folder."""
    (Path(folder) / "pv_run.json").write_text(json.dumps(manifest))
