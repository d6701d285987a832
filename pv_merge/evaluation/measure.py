"""What every measure offers, and the model that it is taken of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.statistics import Estimate
from pv_merge.folders import read_json
from pv_merge.hub_names import loadable

Advance = Callable[[int], None]
"""Called with the number of units done."""


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


class Parts(Protocol):
    """Where a long measure keeps what it has done, so that a killed run goes on from there."""

    def all(self) -> dict[str, Any]:
        """Return every part that is kept, by name."""

    def put(self, part: str, value: Any) -> None:
        """Keep a part on disk."""


class NoParts:
    """Keeps nothing."""

    def all(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def put(self, part: str, value: Any) -> None:
        """Do nothing."""


class Measure(Protocol):
    """One kind of measurement of a model."""

    name: str
    """Short name; figures are called ``name`` or ``name.figure``."""
    needs_base: bool
    """Whether ``items`` compares with the base's record."""

    @property
    def size(self) -> int:
        """Units of work, for the progress bar."""

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights: data hashes and settings."""

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the raw record, as JSON values."""

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each figure's value for every item measured, for paired comparisons."""

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each figure with its interval."""

    def labels(self) -> dict[str, str]:
        """Return what each figure is, with its unit."""

    def better(self) -> dict[str, int]:
        """Return +1 for a figure of which more is better, −1 where less is; others are absent."""


def named_file(text: str, option: str) -> tuple[str, str]:
    """Return the two halves of ``NAME=FILE``."""
    name, equals, place = text.partition("=")
    if not equals or not place or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise PvMergeError(f"{option} {text}: expected NAME=FILE, such as polite=heldout.jsonl")
    return name, place


def load_subject(name: str, base: str | None = None, dtype: str = "float32") -> Subject:
    """Load a causal language model, with its tokenizer; on the GPU where there is one.

    A folder without a tokenizer of its own is read with ``base``'s.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(loadable(_tokenizer_home(name, base)))
        model: Any = AutoModelForCausalLM.from_pretrained(
            loadable(name), dtype=getattr(torch, dtype)
        )
    except (OSError, ValueError) as error:
        raise PvMergeError(f"{name}: cannot be loaded ({str(error).splitlines()[0]})") from None
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
        base = read_json(adapter).get("base_model_name_or_path")
    if base is None:
        raise PvMergeError(
            f"{name}: holds no tokenizer; name the model it was made from with --base"
        )
    return base
