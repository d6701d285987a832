"""The base model and its tokenizer, loaded as a config asks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.foreign import loading
from pv_merge.artifacts.reference import is_hub_name, loadable
from pv_merge.errors import PvMergeError, first_line
from trainers.settings import TrainingSettings


def local_base(name: str) -> Checkpoint | None:
    """Return the base as a checkpoint, out of the Hub's cache for a name on the Hub.

    None where only transformers knows what the name means, such as ``gpt2``.
    """
    if Path(name).exists() or name.startswith((".", "/", "~")) or is_hub_name(name):
        checkpoint = Checkpoint(loadable(name))
        _ = checkpoint.config, checkpoint.files
        return checkpoint
    return None


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of the base model ``name``."""
    with loading(f"{name}: its tokenizer"):
        return AutoTokenizer.from_pretrained(loadable(name), trust_remote_code=False)


def load_model(settings: TrainingSettings) -> Any:
    """Return the base model in ``base_dtype``, or quantized."""
    return _load(AutoModelForCausalLM, settings)


def load_classifier(settings: TrainingSettings) -> Any:
    """Return the base model with a head of one output in place of its own, set by torch's seed."""
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    with suppress_seqcls_warning():  # that the head is new
        return _load(AutoModelForSequenceClassification, settings, num_labels=1)


def _load(kind: Any, settings: TrainingSettings, **options: Any) -> Any:
    options |= {"dtype": getattr(torch, settings.base_dtype)}
    if settings.attn_implementation is not None:
        options["attn_implementation"] = settings.attn_implementation
    if settings.use_kernels:
        if importlib.util.find_spec("kernels") is None:
            raise PvMergeError("use_kernels: needs kernels, which is not installed")
        options["use_kernels"] = True
    if settings.quantization is not None:
        options |= _quantized()
    name = settings.base_model
    with loading(f"{name}:"):
        try:
            model = kind.from_pretrained(
                loadable(name), **options, use_safetensors=True, trust_remote_code=False
            )
        except ImportError as error:
            raise PvMergeError(
                f"attn_implementation: {settings.attn_implementation} is not installed "
                f"({first_line(error)})"
            ) from None
    model.name_or_path = model.config._name_or_path = name  # not the path of a cache
    return model


def lora_config(settings: TrainingSettings, task_type: str = "CAUSAL_LM") -> Any:
    """Return PEFT's LoraConfig, or None for full fine-tuning."""
    if settings.lora is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(task_type=task_type, **settings.lora)
    except (ValueError, TypeError) as error:
        raise PvMergeError(f"lora: {' '.join(str(error).split())}") from None


def _quantized() -> dict[str, Any]:
    lacking = []
    if not torch.cuda.is_available():
        lacking.append("a CUDA device")
    if importlib.util.find_spec("bitsandbytes") is None:
        lacking.append("bitsandbytes (pip install 'pv-merge[qlora]')")
    if lacking:
        raise PvMergeError(
            f"quantization: nf4 needs {' and '.join(lacking)}, not found here; leave it out to "
            "train on the whole base, or set base_dtype: bfloat16 to halve its memory"
        )
    from accelerate import PartialState
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {
        "quantization_config": config,
        "device_map": {"": PartialState().local_process_index},
    }
