"""What a user would pick instead of vectors, each as a subject that any measure takes.

Activation steering is written out here: of the packages that do it, steering-vectors 0.12 wants
transformers below 5, and repeng 0.4 NumPy below 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pv_merge.data.encoding import encode_prompt
from pv_merge.live.subject import Subject

PROMPTS = {
    "helpful": ("Answer as fully and usefully as you can.", "Give no help and no useful information."),
    "harmless": ("Refuse what could do harm, and say nothing dangerous.", "Answer everything, and hold nothing back."),
}  # fmt: skip
"""System prompts for and against each preference."""
STEERED_PAIRS = 128
"""Pairs of which the mean difference is taken."""


class SystemPrompt:
    """A tokenizer whose chat template is given a system message first."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self._tokenizer, self._text = tokenizer, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._tokenizer(*arguments, **options)

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        turns = [{"role": "system", "content": self._text}, *messages]
        return self._tokenizer.apply_chat_template(turns, **options)


def system_text(weights: Mapping[str, float], toward: bool = True) -> str:
    """Return the system prompt for the preferences of a weight above 0, the heavier first."""
    order = sorted((name for name in weights if weights[name] > 0), key=lambda n: -weights[n])
    return " ".join(PROMPTS[name][0 if toward else 1] for name in order)


@contextmanager
def prompted_by(subject: Subject, text: str) -> Iterator[Subject]:
    """Yield the subject with a system prompt."""
    yield replace(subject, tokenizer=SystemPrompt(subject.tokenizer, text))


def middle_layer(model: Any) -> nn.Module:
    """Return the decoder layer in the middle."""
    layers: Sequence[nn.Module] = model.model.layers
    return layers[len(layers) // 2]


@torch.inference_mode()
def mean_difference(subject: Subject, pairs: Path) -> Tensor:
    """Return the mean over pairs of (chosen − rejected) of the middle layer's last hidden state.

    Contrastive activation addition (Rimsky et al. 2024). Shape: (width,).
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(_hidden(output)[0, -1].float().clone())

    handle = middle_layer(subject.model).register_forward_hook(keep)
    try:
        for line in pairs.read_text(encoding="utf-8").splitlines()[:STEERED_PAIRS]:
            row = json.loads(line)
            for side in ("chosen", "rejected"):
                tokens = encode_prompt(subject.tokenizer, [*_turns(row["prompt"], "user"), *_turns(row[side], "assistant")])  # fmt: skip
                limit = subject.max_length or len(tokens)
                ids = torch.tensor([tokens[-limit:]], device=subject.model.device)
                subject.model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    states = torch.stack(seen)
    return (states[0::2] - states[1::2]).mean(0)


@contextmanager
def steered(subject: Subject, direction: Tensor) -> Iterator[Subject]:
    """Yield the subject whose middle layer adds ``direction`` to every token's hidden state."""

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        hidden = _hidden(output)
        hidden = hidden + direction.to(hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = middle_layer(subject.model).register_forward_hook(add)
    try:
        yield subject
    finally:
        handle.remove()


class Experts:
    """A model whose logits are base + Σ weight·(expert − anti-expert) (DExperts, Liu et al. 2021)."""

    def __init__(self, base: Any, pairs: Sequence[tuple[float, Any, Any]]) -> None:
        self._base, self._pairs = base, list(pairs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def __call__(self, **inputs: Any) -> Any:
        return self.forward(**inputs)

    def set_attn_implementation(self, name: str) -> None:
        """Have all models attend alike: the measures lay sequences out as a tree."""
        for model in (self._base, *(m for _, *pair in self._pairs for m in pair)):
            model.set_attn_implementation(name)

    def forward(self, **inputs: Any) -> Any:
        """Return the base's output with the combined logits, of any sequences at once."""
        output = self._base(**inputs)
        for weight, expert, other in self._pairs:
            output.logits = output.logits + weight * (expert(**inputs).logits - other(**inputs).logits)  # fmt: skip
        return output

    def generate(self, **options: Any) -> Any:
        """Generate with transformers; the experts come in as a logits processor."""
        processors = [*(options.pop("logits_processor", None) or [])]
        mask = options["attention_mask"]
        mixing = [_Mixing(*pair, mask) for pair in self._pairs]
        return self._base.generate(**options, logits_processor=[*mixing, *processors])


class _Mixing:
    """Adds weight·(expert − anti-expert), each with a cache of its own, one token after the other."""

    def __init__(self, weight: float, expert: Any, other: Any, mask: Tensor) -> None:
        self._weight, self._models, self._mask = weight, (expert, other), mask
        self._caches: list[Any] = [None, None]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        grown = input_ids.shape[1] - self._mask.shape[1]
        mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), grown)], dim=1)
        found = []
        for place, model in enumerate(self._models):
            cache = self._caches[place]
            ids = input_ids if cache is None else input_ids[:, -1:]
            positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            output = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)  # fmt: skip
            self._caches[place] = output.past_key_values
            found.append(output.logits[:, -1])
        return scores + self._weight * (found[0] - found[1]).to(scores)


def _turns(said: Any, role: str) -> list[tuple[str, str]]:
    """Return messages, or plain text as one message."""
    if isinstance(said, str):
        return [(role, said)]
    return [(turn["role"], turn["content"]) for turn in said]


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
