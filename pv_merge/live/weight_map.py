"""Weights that a live model holds under another name than its files, or fused from several.

transformers 5 renames some weights as it loads them, and fuses the experts of a mixture into one
weight. Every such conversion renames, stacks or concatenates, so it does to a change what it does
to a weight. mergekit has it as a function of single tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LiveNames:
    """How the names of a model's files map to those of the live model."""

    kinds: tuple[str, ...]
    """The model's class and its ``model_type``: what transformers lists its conversions under."""
    sources: Mapping[str, tuple[str, ...]]
    """The names in the files that each live weight is made of."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each live weight, as made of them."""
    unknown: tuple[str, ...]
    """Names in the files that no live weight is made of."""

    def convert(self, target: str, read: Callable[[str], Tensor]) -> Tensor:
        """Return the live tensor ``target``, made of what ``read`` returns for names in the files."""
        names = self.sources[target]
        if names == (target,):
            return read(target)
        parts = {name: _later(read, name) for name in names}
        result: Tensor = _convert(self.kinds, target, parts)
        return result


def live_names(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> LiveNames:
    """Return how tensors of these names and shapes, as the files have them, map to ``model``'s."""
    state = model.state_dict()
    sources: dict[str, tuple[str, ...]] = {name: (name,) for name in shapes if name in state}
    found = {name: shapes[name] for name in sources}
    left = {name for name in shapes if name not in state}
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    kinds = (type(model).__name__, *([model_type] if model_type else []))
    if not left:
        return LiveNames(kinds, sources, found, ())
    used: set[str] = set()

    def placeholder(name: str) -> Tensor:
        used.add(name)
        return torch.empty(shapes[name], device="meta")

    for target in state:
        if target in sources:
            continue
        used.clear()
        result = _convert(kinds, target, {name: _later(placeholder, name) for name in sorted(left)})
        if result is not None:
            sources[target] = tuple(sorted(used))
            found[target] = tuple(result.shape)
    unknown = left - {name for names in sources.values() for name in names}
    return LiveNames(kinds, sources, found, tuple(sorted(unknown)))


def _later(read: Callable[[str], Tensor], name: str) -> Callable[[], Tensor]:
    return lambda: read(name)


def _convert(kinds: tuple[str, ...], target: str, parts: Mapping[str, Callable[[], Tensor]]) -> Any:
    from mergekit.architecture.conversion import convert_checkpoint_tensors

    for kind in kinds:
        result = convert_checkpoint_tensors(kind, parts, target)
        if result is not None:
            return result
    return None
