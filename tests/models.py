"""Tiny models, built from a config with a seed, and what tests do with them: perturb, save, merge."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from torch import Tensor

Model = Any
"""A transformers model (or PEFT's around one), whose types would say less than they hinder."""

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", GROUPED),
    "Mistral": ("MistralConfig", {**GROUPED, "sliding_window": None}),
    "Qwen2": ("Qwen2Config", GROUPED),
    "Qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "Gemma 3 (text)": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 16}),
    "Phi-3": ("Phi3Config", GROUPED),
    "GPT-2": (
        "GPT2Config",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"bos_token_id": 1, "eos_token_id": 2},
    ),
    "GPT-NeoX": ("GPTNeoXConfig", SMALL),
    "OLMo 2": ("Olmo2Config", GROUPED),
    "Granite": ("GraniteConfig", GROUPED),
    "Falcon": (
        "FalconConfig",
        {**SMALL, "multi_query": True, "new_decoder_architecture": False, "bias": False},
    ),
    "Falcon (new decoder)": (
        "FalconConfig",
        {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False},
    ),
    "StarCoder 2": ("Starcoder2Config", {**GROUPED, "sliding_window": None}),
    "Mixtral": (
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "Qwen3-MoE": (
        "Qwen3MoeConfig",
        {**GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 24, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
}
"""Each family's config class and its arguments for two layers."""

PROMPT = torch.tensor([[1, 17, 42, 5, 63, 8, 30, 11]])


def tiny(
    family: str = "Llama",
    *,
    tied: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **extra: Any,
) -> Model:
    """Return a randomly initialised causal language model of two layers, in evaluation mode."""
    kind, arguments = FAMILIES[family]
    config = getattr(transformers, kind)(**{**arguments, "tie_word_embeddings": tied, **extra})
    torch.manual_seed(seed)
    model: Model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:  # the default spread, 0.02, gives logits that are all alike
                parameter.normal_(0.0, 0.15)
            elif "bias" in name:
                parameter.normal_(0.0, 0.05)
    return model.to(dtype).eval()


def perturbed(model: Model, seed: int, size: float = 0.02) -> Model:
    """Return a copy with noise of standard deviation ``size`` on every weight: a stand-in policy."""
    policy = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * size
            parameter.add_(noise.to(parameter.dtype))
    return policy


def save(model: Model, folder: Path, *, shard: str = "5GB") -> str:
    """Save as a checkpoint and return its path as a recipe would name it."""
    model.save_pretrained(folder, max_shard_size=shard)
    return str(folder)


def logits(model: Model | str | Path) -> Tensor:
    """Return the logits of ``PROMPT``, of a live model or of a checkpoint loaded in float32."""
    live = load(model) if isinstance(model, str | Path) else model
    with torch.no_grad():
        result: Tensor = live(PROMPT).logits
    return result.float()


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Model:
    """Load a checkpoint with transformers, and insist that it fits the model exactly."""
    found: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    model, report = found
    unfit = {key: value for key, value in report.items() if value}
    assert not unfit, unfit
    loaded: Model = model.eval()
    return loaded


def state(folder: str | Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint folder."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        found |= load_file(path)
    return found


def write_state(folder: Path, tensors: Mapping[str, Tensor], like: str | Path) -> str:
    """Write tensors as a checkpoint with the config of the checkpoint ``like``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "config.json").write_text((Path(like) / "config.json").read_text())
    return str(folder)


def recipe(
    base: str,
    inputs: list[tuple[str, dict[str, Any]]],
    parameters: dict[str, Any] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """Return a recipe of the method ``preference_vector``; inputs are (folder, parameters)."""
    return {
        "merge_method": "preference_vector",
        "base_model": base,
        "models": [{"model": model, "parameters": said} for model, said in inputs],
        **({"parameters": parameters} if parameters else {}),
        **top,
    }


def pair(
    positive: str, negative: str, eta: Any, name: str = "helpful"
) -> list[tuple[str, dict[str, Any]]]:
    """Return the two inputs of one preference."""
    return [
        (positive, {"preference": name, "polarity": "positive", "eta": eta}),
        (negative, {"preference": name, "polarity": "negative"}),
    ]


def mergekit_yaml(document: Mapping[str, Any], out: Path, *options: str) -> str:
    """Merge with stock mergekit-yaml in this process; return the output folder's path."""
    from click.testing import CliRunner
    from mergekit.scripts.run_yaml import main

    path = out.parent / f"{out.name}.yml"
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    arguments = [str(path), str(out), "--no-copy-tokenizer", "--quiet", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(out)


def added(model: Model, terms: list[tuple[float, Model, Model]]) -> Model:
    """Return a copy of the live model with Σ eta·(positive − negative) added by plain torch."""
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            for eta, positive, negative in terms:
                parameter += eta * (positive.get_parameter(name) - negative.get_parameter(name))
    return merged


def largest_difference(left: Tensor, right: Tensor) -> float:
    """Return max |left − right|."""
    return float((left.double() - right.double()).abs().max())
