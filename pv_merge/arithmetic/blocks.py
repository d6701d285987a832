"""The arithmetic applied to whole merges: block by block, in memory that is used again.

The inputs are read once and the output is written once; what lies in between is a few blocks of
scratch for each thread, whatever the tensor's size. What comes out does not depend on the blocks' size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.preference import (
    capped_eta,
    consensus,
    keep_largest,
    orthogonalize,
    preference_vector,
)
from pv_merge.arithmetic.rounding import Rounder
from pv_merge.arithmetic.terms import Controls, Part, PreferenceInputs

STEP = BLOCK
"""Elements that a thread works on at a time. Smaller blocks fit its cache better, but then the threads
wait for each other in the interpreter (measured: half of ``BLOCK`` takes 1.4 times as long)."""

Record = Callable[[Tensor, list[Tensor], Tensor], None]


class _Scratch(threading.local):
    """Float32 memory of each thread, by number."""

    def __init__(self) -> None:
        self._held: dict[int, Tensor] = {}

    def take(self, number: int, like: Tensor) -> Tensor:
        """Return memory for ``like`` (one dimension), whatever was in it."""
        held = self._held.get(number)
        if held is None or held.numel() < like.numel() or held.device != like.device:
            held = torch.empty(like.numel(), dtype=torch.float32, device=like.device)
            self._held[number] = held
        return held[: like.numel()]


_scratch = _Scratch()


def merge_in_torch(
    base: Tensor,
    preferences: Sequence[PreferenceInputs[Tensor]],
    controls: Controls | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    name: str = "",
    out: Tensor | None = None,
) -> Tensor:
    """Do what ``merge`` does, block by block in torch: the reference, and the way on accelerators."""
    controls = controls or Controls()
    active = [item.flat() for item in preferences if item.eta != 0]
    result = out
    if result is None:
        result = torch.empty_like(base, dtype=dtype, memory_format=torch.contiguous_format)
    rounder = Rounder(dtype, controls.rounding, controls.seed, name)
    flat_base, flat_result = base.reshape(-1), result.view(-1)
    if needs_whole_tensors(active, controls):
        active = whole_tensor_steps(flat_base, active, controls)
    for start in range(0, flat_base.numel(), STEP):
        window = slice(start, start + STEP)
        inputs = [item.window(window) for item in active]
        merge_block(flat_base[window], inputs, controls, rounder, start, flat_result[window])
    return result


def merge_block(
    base: Tensor,
    preferences: Sequence[PreferenceInputs[Tensor]],
    controls: Controls,
    rounder: Rounder,
    start: int,
    out: Tensor,
    record: Record | None = None,
) -> None:
    """Write base + Σ η·φ of one block into ``out``; every tensor is the block's part, flat.

    A block holds the positions from ``start`` on. No control here looks beyond the block: see
    ``whole_tensor_steps`` for those that must. What nothing moves keeps its bits, −0 among them,
    which adding +0 would turn into +0. ``record``, if given, is called with (base, every η·φ, out)
    once ``out`` is written; it may keep none of them.
    """
    origin = _origin(base)
    change: Tensor | None = None
    steps: list[Tensor] = []
    if record is not None or controls.sign_consensus != "none":
        steps = block_steps(origin, preferences)
        if steps:
            first = _scratch.take(1, base).copy_(steps[0]) if record is not None else steps[0]
            change = consensus([first, *steps[1:]], controls.sign_consensus)
    else:
        for item in preferences:
            step = _step(origin, item, 3 if change is not None else 1)
            change = step if change is None else change.add_(step)
    if change is not None and moves(change):
        # What does not move keeps its bits: adding +0 would turn −0 into +0.
        values = torch.where(change == 0, origin, change + origin)
        if base.dtype == out.dtype == torch.float64:
            out.copy_(torch.where(values == origin, base, values.double()))
        else:
            rounder.round(values, start, out)
    elif base.dtype == out.dtype:
        out.copy_(base)
    else:
        rounder.round(_scratch.take(1, base).copy_(base), start, out)
    if record is not None:
        record(origin, steps, out)


def block_steps(base: Tensor, preferences: Sequence[PreferenceInputs[Tensor]]) -> list[Tensor]:
    """Return η·φ of every preference for one block, in float32; they last until the next block."""
    origin = _origin(base)
    return [_step(origin, item, 3 + number) for number, item in enumerate(preferences)]


def _origin(base: Tensor) -> Tensor:
    return base if base.dtype is torch.float32 else _scratch.take(0, base).copy_(base)


def _step(origin: Tensor, item: PreferenceInputs[Tensor], number: int) -> Tensor:
    """Return η·φ of one preference, in the scratch memory of that number."""
    out = _scratch.take(number, origin)
    if not item.positives and not item.negatives and len(item.vectors) == 1:
        (vector,) = item.vectors
        if vector.dtype is torch.float32:
            return torch.mul(vector, item.eta, out=out)
    phi = preference_vector(
        origin,
        item.positives,
        item.negatives,
        item.vectors,
        out=out,
        spare=_scratch.take(2, origin),
    )
    return phi.mul_(item.eta)


def moves(change: Tensor) -> bool:
    """Return whether any element of a change is not zero; a sum of squares nearly always tells."""
    first = change.reshape(-1)[:STEP]
    return float(torch.dot(first, first)) != 0 or bool(change.any())


def needs_whole_tensors(preferences: Sequence[PreferenceInputs[Part]], controls: Controls) -> bool:
    """Return whether a control must see a whole tensor at once."""
    if controls.interference == "orthogonal" and len(preferences) > 1:
        return True
    return any(
        item.density < 1 or item.max_relative_norm is not None or item.transforms
        for item in preferences
    )


def whole_tensor_steps(
    base: Tensor, preferences: Sequence[PreferenceInputs[Tensor]], controls: Controls
) -> list[PreferenceInputs[Tensor]]:
    """Return each preference as its finished η·φ: sparse, orthogonal, capped as asked for.

    In this order: ``density``, further controls, ``interference``, ``max_relative_norm``. The
    result's eta is 1.
    """
    phis = [controlled(base, item) for item in preferences]
    if controls.interference == "orthogonal":
        phis = orthogonalize(phis)
    return [
        PreferenceInputs(
            p.name, 1.0, vectors=(phi * capped_eta(p.eta, phi, base, p.max_relative_norm),)
        )
        for p, phi in zip(preferences, phis, strict=True)
    ]


def controlled(base: Tensor, item: PreferenceInputs[Tensor]) -> Tensor:
    """Return a whole φ with the controls that act on it alone."""
    phi = preference_vector(base, item.positives, item.negatives, item.vectors)
    phi = keep_largest(phi, item.density)
    for transform in item.transforms:
        phi = transform(phi)
    return phi
