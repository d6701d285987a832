"""A tiny base, two vectors and a recipe on disk, for the tests of evaluation, sweep and calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM

from pv_merge.data.prompts import Prompt
from pv_merge.evaluation.prompted import Prompted
from pv_merge.live.generation import Answering
from pv_merge.live.subject import Subject, load_subject

from models import pair, perturbed
from train_tiny import pair_rows, save_base, write_rows


def make_recipe(folder: Path, **parameters: Any) -> Path:
    """Write a base, two policies for each of two preferences, and their recipe."""
    base = save_base(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    inputs = []
    for place, name in enumerate(("polite", "brief")):
        for side, sign in enumerate(("positive", "negative")):
            perturbed(model, 10 * place + side, 0.01).save_pretrained(folder / f"{name}-{sign}")
        policies = [str(folder / f"{name}-{sign}") for sign in ("positive", "negative")]
        inputs += pair(*policies, eta=1.0, name=name)
    document = {
        "merge_method": "preference_vector",
        "base_model": str(base),
        "models": [{"model": model, "parameters": said} for model, said in inputs],
        **({"parameters": parameters} if parameters else {}),
    }
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    write_rows(folder / "pairs.jsonl", pair_rows(8))
    return path


def prompted(*prompts: str | Prompt, tokens: int = 4, **how: Any) -> Prompted:
    """Return prompts, safe ones unless they say otherwise, with short greedy answers."""
    asked = tuple(p if isinstance(p, Prompt) else Prompt(p) for p in prompts)
    return Prompted(asked, Answering(tokens, **how))


class Kept:
    """Parts in memory."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}

    def all(self) -> dict[str, Any]:
        return dict(self.parts)

    def put(self, part: str, value: Any) -> None:
        self.parts[part] = value

    def shared(self, name: str) -> Kept:
        return self


def subject(folder: Path) -> Subject:
    """Return a loaded tiny base whose weights are large enough for answers to differ."""
    loaded = load_subject(str(save_base(folder / "subject")))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.15)
    return loaded
