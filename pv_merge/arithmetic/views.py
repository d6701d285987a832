"""Kernels on torch's tensors: views of their memory, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pv_merge.arithmetic.dtypes import DTYPE_NAMES
from pv_merge.arithmetic.fused import merge_flat
from pv_merge.arithmetic.stored import CODES
from pv_merge.arithmetic.surveys import inner_products
from pv_merge.arithmetic.windows import NEGATIVE, POSITIVE, VECTOR, Flat, Inputs, Rules, Strength

if TYPE_CHECKING:
    from pv_merge.arithmetic.terms import Controls, PreferenceInputs


def fit_for_kernels(tensors: Sequence[Tensor]) -> bool:
    """Return whether kernels can read all of these where they lie."""
    return all(
        tensor.device.type == "cpu" and DTYPE_NAMES.get(tensor.dtype) in CODES for tensor in tensors
    )


def flat(tensor: Tensor) -> Flat:
    """Return a tensor's elements in order; a copy of them only where it has strides."""
    whole = tensor.detach().contiguous()
    return Flat(whole.data_ptr(), DTYPE_NAMES[whole.dtype], whole)


def inputs_of(base: Tensor, preferences: Sequence[PreferenceInputs[Tensor]]) -> Inputs:
    """Return the tensors of a merge as kernels take them."""
    groups = [
        [
            (role, flat(tensor))
            for role, group in (
                (POSITIVE, item.positives),
                (NEGATIVE, item.negatives),
                (VECTOR, item.vectors),
            )
            for tensor in group
        ]
        for item in preferences
    ]
    return Inputs(flat(base), groups)


def strengths_of(preferences: Sequence[PreferenceInputs[Tensor]]) -> list[Strength]:
    """Return how strongly each preference counts."""
    return [Strength(item.eta, item.density, item.max_relative_norm) for item in preferences]


def merge_tensor(
    base: Tensor,
    preferences: Sequence[PreferenceInputs[Tensor]],
    controls: Controls,
    name: str,
    out: Tensor,
    threads: int = 1,
) -> int:
    """Write base + Σ η·φ into ``out`` (contiguous); return how many values are not finite.

    Every preference that is given counts, whatever its η.
    """
    moving = [item for item in preferences if item.positives or item.negatives or item.vectors]
    inputs = inputs_of(base, moving)
    dtype = DTYPE_NAMES[out.dtype]
    rules = Rules(
        name,
        controls.sign_consensus,
        controls.interference == "orthogonal",
        controls.rounding == "stochastic",
        controls.seed,
        dtype,
        dtype,
        keep_base=controls.not_finite == "keep_base",
    )

    def load(start: int, count: int) -> Inputs:
        return inputs.window(start)

    return merge_flat(out.numel(), load, strengths_of(moving), rules, out.data_ptr(), threads)


def products(tensors: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the inner products of pairs of tensors of one shape, each known by its number.

    The order of the sums, and so every bit, is that of ``measures.square_sum``.
    """
    inputs = Inputs(flat(tensors[0]), [[(VECTOR, flat(tensor))] for tensor in tensors])
    return inner_products(tensors[0].numel(), lambda start, count: inputs.window(start), pairs)
