"""The merge of one tensor in memory: by fused kernels on a CPU, in torch elsewhere, to the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pv_merge.arithmetic.blocks import controlled, merge_in_torch
from pv_merge.arithmetic.terms import Controls, PreferenceInputs
from pv_merge.arithmetic.views import fit_for_kernels, merge_tensor
from pv_merge.errors import PvMergeError


def merge(
    base: Tensor,
    preferences: Sequence[PreferenceInputs[Tensor]],
    controls: Controls | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    name: str = "",
    out: Tensor | None = None,
) -> Tensor:
    """Return base + Σ η·φ (Eq. 4 and 5) with all controls, rounded to ``dtype``.

    All tensors share one shape. ``name``, the tensor's name, and ``controls.seed`` seed the noise
    of stochastic rounding. Where nothing moves, the base's exact bits stay if ``dtype`` is its own.
    The result is written to ``out`` if that is given, contiguous and of ``dtype``. On a CPU fused
    kernels do it, elsewhere torch, with the same bits. Raises ``PvMergeError`` where a value is not
    finite, unless ``controls.not_finite`` says that the base's stays.
    """
    _refuse_whole_numbers(name, base, preferences)
    controls = controls or Controls()
    active = [item for item in preferences if item.eta != 0]
    result = out
    if result is None:
        result = torch.empty_like(base, dtype=dtype, memory_format=torch.contiguous_format)
    if not base.is_floating_point():
        return result.copy_(base)
    keep = controls.not_finite == "keep_base"
    if fit_for_kernels([base, result, *(t for item in active for t in item.parts)]):
        formed = [_formed(base, item) if item.transforms else item for item in active]
        bad = merge_tensor(base, formed, controls, name, result, torch.get_num_threads())
    else:
        merge_in_torch(base, active, controls, dtype=dtype, name=name, out=result)
        odd = ~result.isfinite()
        bad = int(odd.sum())
        if bad and keep:
            result.copy_(torch.where(odd, base.to(dtype), result))
    if bad and not keep:
        raise PvMergeError(not_finite_problem(name, base, active))
    return result


def _refuse_whole_numbers(
    name: str, base: Tensor, preferences: Sequence[PreferenceInputs[Tensor]]
) -> None:
    """Raise ``PvMergeError`` for a weight that is no floating-point number, unless all are equal."""
    inputs = [part for item in preferences for part in item.parts]
    if base.is_floating_point() and all(part.is_floating_point() for part in inputs):
        return
    for part in inputs:
        if part.dtype != base.dtype or not torch.equal(part, base):
            raise PvMergeError(
                f"{name}: an input is stored as {part.dtype}, the base as {base.dtype}, and they "
                "differ; whole numbers are no weights, and a buffer must equal the base's"
            )


def _formed(base: Tensor, item: PreferenceInputs[Tensor]) -> PreferenceInputs[Tensor]:
    """Return a preference as its φ, with the controls that kernels do not know applied."""
    phi = controlled(base, item)
    return PreferenceInputs(
        item.name, item.eta, vectors=(phi,), max_relative_norm=item.max_relative_norm
    )


def not_finite_problem(
    name: str, base: Tensor, preferences: Sequence[PreferenceInputs[Tensor]]
) -> str:
    """Return a line that says which input of a tensor holds NaN or infinity."""
    held = [("the base", base)]
    for item in preferences:
        for role, group in (
            ("a positive policy", item.positives),
            ("a negative policy", item.negatives),
            ("a vector", item.vectors),
        ):
            held += [(f"{role} of {item.name}", tensor) for tensor in group]
    for label, tensor in held:
        count = int((~tensor.float().isfinite()).sum())
        if count:
            return not_finite_line(name, label, count)
    return f"{name}: base + Σ eta·phi is beyond the dtype it is rounded to; is an eta too large?"


def not_finite_line(name: str, label: str, count: int) -> str:
    """Return the line about values of one input."""
    values = "one value" if count == 1 else f"{count} values"
    return (
        f"{name}: {label} holds {values} that {'is' if count == 1 else 'are'} not finite; did its "
        "training diverge? (not_finite: keep_base leaves the base as it is there)"
    )
