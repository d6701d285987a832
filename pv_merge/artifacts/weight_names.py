"""Which layer a weight belongs to, by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Return the number of the layer that the weight ``name`` is in, or None outside of all."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def is_linear(name: str, weight: Tensor) -> bool:
    """Return whether a weight is that of a linear layer, by its shape and name."""
    leaf = name.removesuffix(".weight").rpartition(".")[2]
    tables = ("embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings")
    return weight.dim() == 2 and name.endswith(".weight") and leaf not in tables


KINDS = {
    "attention": ("attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj", "qkv"),
    "mlp": ("mlp", "gate_proj", "up_proj", "down_proj", "fc", "dense_h", "dense_4h", "experts"),
    "embedding": ("embed", "wte", "wpe", "lm_head"),
    "norm": ("norm", "ln_"),
}


def kind_of(name: str) -> str:
    """Return what sort of module a weight belongs to, by its name."""
    for kind, marks in KINDS.items():
        if any(mark in name for mark in marks):
            return kind
    return "other"
