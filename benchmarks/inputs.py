"""Inputs of the merging benchmark: a Llama layout of any size, with random weights in bfloat16."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from pv_merge.artifacts.output_files import OutputFiles


@dataclass(frozen=True)
class Size:
    """A Llama's shape."""

    name: str
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 49152

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        head = self.hidden // self.heads
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            shapes |= {
                f"{prefix}self_attn.q_proj.weight": (self.hidden, self.hidden),
                f"{prefix}self_attn.k_proj.weight": (self.kv_heads * head, self.hidden),
                f"{prefix}self_attn.v_proj.weight": (self.kv_heads * head, self.hidden),
                f"{prefix}self_attn.o_proj.weight": (self.hidden, self.hidden),
                f"{prefix}mlp.gate_proj.weight": (self.mlp, self.hidden),
                f"{prefix}mlp.up_proj.weight": (self.mlp, self.hidden),
                f"{prefix}mlp.down_proj.weight": (self.hidden, self.mlp),
                f"{prefix}input_layernorm.weight": (self.hidden,),
                f"{prefix}post_attention_layernorm.weight": (self.hidden,),
            }
        return {name: ("BF16", shape) for name, shape in shapes.items()}

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for _, shape in self.tensors().values())


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 64, 128, 2, 4, 2, 512),
        Size("135M", 576, 1536, 30, 9, 3),
        Size("0.86B", 1536, 4608, 28, 12, 4),
        Size("3B", 2560, 8192, 36, 20, 4),
    )
}


def write_model(folder: Path, size: Size, seed: int, around: int | None = None) -> Path:
    """Write a checkpoint; with ``around``, a policy: that seed's weights plus noise of 1e-3."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tensors = size.tensors()
    files = OutputFiles(folder, tensors)
    for index, (name, (_, shape)) in enumerate(tensors.items()):
        count = torch.Size(shape).numel()
        generator = torch.Generator().manual_seed(
            (seed if around is None else around) * 100003 + index
        )
        weight = torch.randn(count, generator=generator).mul_(0.02)
        if around is not None:
            generator.manual_seed(seed * 100003 + index)
            weight += torch.randn(count, generator=generator).mul_(1e-3)
        files.write(name, 0, memoryview(weight.bfloat16().view(torch.uint8).numpy()))
    files.close()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.hidden // size.heads,
        "vocab_size": size.vocabulary,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def write_recipe(path: Path, models: Path, preferences: int, method: str, **top: str) -> Path:
    """Write a recipe over ``preferences`` pairs of policies, for our method or a peer's."""
    lines = [f"merge_method: {method}", f"base_model: {models}/base", "models:"]
    for number in range(preferences):
        for polarity, sign in (("positive", 1), ("negative", -1)):
            lines.append(f"  - model: {models}/{polarity}{number}")
            if method == "preference_vector":
                eta = ", eta: 0.5" if sign > 0 else ""
                lines.append(
                    f"    parameters: {{preference: p{number}, polarity: {polarity}{eta}}}"
                )
            else:
                lines.append(f"    parameters: {{weight: {0.5 * sign}, density: 1.0}}")
    if method != "preference_vector":
        lines.append("parameters: {normalize: false}")
    lines += [f"{key}: {value}" for key, value in top.items()]
    path.write_text("\n".join(lines) + "\n")
    return path
