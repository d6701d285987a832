"""A tiny base model, tiny data and small configs for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "../shared/data"

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<eos>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_base(folder: Path, *, template: bool = True, layers: int = 2) -> Path:
    """Save a seeded two-layer Llama and a byte-level tokenizer."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", *bytes_]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.add_special_tokens({"additional_special_tokens": words[2:5]})
    if template:
        fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def pair_rows(count: int = 12) -> list[dict[str, Any]]:
    """Return distinct pairs, of different lengths."""
    return [
        {
            "prompt": f"Question {i}" + "?" * (i % 4),
            "chosen": f"Please, it is {i * 7}." + " Thank you." * (i % 3),
            "rejected": f"It's {i * 7}, obviously." + " Go." * (i % 2),
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def config(folder: Path, base: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """Return a small training config; ``changes`` replace its entries, and None removes one."""
    found: dict[str, Any] = {
        "base_model": str(base),
        "preference": "polite",
        "dataset": {"path": str(data), "format": "pairs"},
        "lora": LORA,
        "dpo": {
            "beta": 0.1,
            "learning_rate": 1e-3,
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "max_length": 96,
        },
        "output_dir": str(folder / "run"),
    }
    dpo = changes.pop("dpo", {})
    found |= changes
    found["dpo"] = found["dpo"] | dpo
    return {key: value for key, value in found.items() if value is not None}


def write_config(path: Path, data: dict[str, Any]) -> Path:
    """Write a config."""
    path.write_text(yaml.safe_dump(data))
    return path
