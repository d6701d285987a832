"""Attention over a tree of tokens, for any model that takes its attention from transformers.

The row is cut into runs, chains in which each token's parent is the one before. A run is one call of
scaled-dot-product attention with its ancestors' keys before its own: what a mask over the whole row
would hide is never computed. The places travel as the model's attention mask, four-dimensional
integers, so they reach every layer, a checkpointed one's second pass too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pv_merge.data.token_tree import TokenTree

NAME = "token_tree"
"""The attention's name in transformers; what is not a tree it leaves to ``sdpa``."""


def tree_inputs(tree: TokenTree, device: torch.device) -> dict[str, Tensor]:
    """Return a tree as a model's inputs. Shape: (1, tokens); of the mask (1, 1, 1, tokens)."""
    return {
        "input_ids": torch.tensor([tree.tokens], device=device),
        "position_ids": torch.tensor([tree.depths], device=device),
        "attention_mask": torch.tensor([[[tree.until]]], dtype=torch.int32, device=device),
    }


@contextmanager
def attending_to_trees(model: Any) -> Iterator[None]:
    """Have a model understand ``tree_inputs`` within the block, beside its usual inputs."""
    before = attend_to_trees(model)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend_to_trees(model: Any) -> str:
    """Have a model understand ``tree_inputs`` from now on; return the name of what it had."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = str(model.config._attn_implementation)
    model.set_attn_implementation(NAME)
    return before


def why_not(model: Any, longest: int) -> str | None:
    """Return why sequences of up to ``longest`` tokens cannot be a tree for a model, or None.

    None is what its config and its code say; a caller compares some values as well.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return "is not a model of transformers"
    config = model.config.get_text_config()
    if model._is_stateful:
        return "keeps a state from token to token"
    if not (model._can_set_attn_implementation() and model._supports_sdpa):
        return "has an attention of its own"
    if model.config._attn_implementation not in ("sdpa", NAME):
        return f"uses {model.config._attn_implementation} for its attention"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "takes no positions"
    kinds = set(getattr(config, "layer_types", None) or ())
    odd = sorted(kinds - {"full_attention", "sliding_attention"})
    if odd:
        return f"has layers of the kind {odd[0]}"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    if window and slides and longest > window:
        return f"sees only the last {window} tokens"
    return None


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return attention over a tree, or ``sdpa``'s where the mask is not a tree's.

    Shapes: query (1, heads, tokens, width); key and value may have fewer heads; result (1, tokens,
    heads, width). Raises ``ValueError`` for what a layer does beyond plain attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa

    if attention_mask is None or attention_mask.dtype != torch.int32:
        return sdpa(module, query, key, value, attention_mask, dropout, scaling, **options)
    runs, sizes = _runs(tuple(attention_mask.flatten().tolist()))
    window = options.get("sliding_window")
    if window and any(run.seen > window for run in runs):
        raise ValueError(f"a tree is deeper than the sliding window of {window} tokens")
    beyond = ("s_aux", "position_bias", "softcap")
    if any(options.get(name) is not None for name in beyond):
        raise ValueError(f"a tree knows nothing of {', '.join(beyond)}")
    # Split once: the gradients of the parts are then put together once.
    keys, values = key.split(sizes, dim=2), value.split(sizes, dim=2)
    parts = []
    for run, own in zip(runs, query.split([run.length for run in runs], dim=2), strict=True):
        mask = None
        if run.seen > run.length:
            seen = torch.ones(run.length, run.seen, dtype=torch.bool, device=query.device)
            mask = seen.tril(run.seen - run.length)[None, None]
        part, _ = sdpa(
            module,
            own,
            torch.cat([keys[at] for at in run.segments], dim=2),
            torch.cat([values[at] for at in run.segments], dim=2),
            mask,
            dropout,
            scaling,
            is_causal=True,
        )
        parts.append(part)
    return torch.cat(parts, dim=1), None


@dataclass(frozen=True)
class _Run:
    """A chain of tokens, each the child of the one before."""

    length: int
    seen: int
    """Tokens from the root to the run's end."""
    segments: tuple[int, ...]
    """Parts of the row from the root to the run's end."""


@lru_cache(maxsize=8)
def _runs(until: tuple[int, ...]) -> tuple[tuple[_Run, ...], list[int]]:
    """Return the runs of a tree in order, and the sizes of the segments that they name.

    A segment is a stretch without a branch: all its tokens are seen by the same later ones.
    """
    breaks = [0] + [
        i for i in range(1, len(until)) if until[i] != until[i - 1] or until[i - 1] <= i
    ]
    sizes = [stop - start for start, stop in zip(breaks, [*breaks[1:], len(until)], strict=True)]
    runs: list[_Run] = []
    open_: list[int] = []
    for at, (start, size) in enumerate(zip(breaks, sizes, strict=True)):
        goes_on = bool(open_) and until[breaks[open_[-1]]] > start
        while open_ and until[breaks[open_[-1]]] <= start:
            open_.pop()
        open_.append(at)
        length = runs.pop().length + size if goes_on else size
        runs.append(_Run(length, sum(sizes[i] for i in open_), tuple(open_)))
    return tuple(runs), sizes
