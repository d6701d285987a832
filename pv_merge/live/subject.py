"""A model in memory with its tokenizer, whatever is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.artifacts.foreign import loading
from pv_merge.artifacts.reference import loadable
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError


@dataclass
class Subject:
    """A model to be measured."""

    model: Any
    """A causal language model of transformers."""
    tokenizer: Any
    name: str
    """The folder or Hub name that it was loaded from."""

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the model takes, in tokens."""
        limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        return limit


def load_subject(name: str, base: str | None = None, dtype: str = "float32") -> Subject:
    """Load a causal language model, with its tokenizer; on the GPU where there is one.

    A folder without a tokenizer of its own is read with ``base``'s. Python files in it are never
    run, and nobody is asked whether they may be.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    with loading(f"{name}:"):
        tokenizer = AutoTokenizer.from_pretrained(
            loadable(_tokenizer_home(name, base)), trust_remote_code=False
        )
        model: Any = AutoModelForCausalLM.from_pretrained(
            loadable(name),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
    if torch.cuda.is_available():
        model.to("cuda")
    return Subject(model.eval(), tokenizer, name)


def _tokenizer_home(name: str, base: str | None) -> str:
    """Return where a model's tokenizer lies: in its folder, or with its base."""
    folder = Path(name)
    files = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")
    if not folder.is_dir() or any((folder / file).exists() for file in files):
        return name
    adapter = folder / "adapter_config.json"
    if base is None and adapter.exists():
        base = read_object(adapter).get("base_model_name_or_path")
    if base is None:
        raise PvMergeError(
            f"{name}: holds no tokenizer; name the model it was made from with --base"
        )
    return base
