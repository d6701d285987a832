"""The preference arithmetic on single tensors: φ, its controls, and how several add up.

Everything here is a pure function of tensors in float32, and elementwise unless it says otherwise,
so that the result of a merge does not depend on how the work is cut into chunks, shards or threads.
Rounding, low-rank changes and measures are beside it, in modules of their own.
Equations are those of "Adaptive Helpfulness-Harmlessness Alignment with Preference Vectors"
(EACL 2026, arXiv 2504.20106).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pv_merge.arithmetic.choices import SignConsensus, refuse_unknown
from pv_merge.arithmetic.measures import norm, square_sum


def preference_vector(
    base: Tensor,
    positives: Sequence[Tensor] = (),
    negatives: Sequence[Tensor] = (),
    vectors: Sequence[Tensor] = (),
    *,
    out: Tensor | None = None,
    spare: Tensor | None = None,
) -> Tensor:
    """Return φ = Σ(positive − base) − Σ(negative − base) + Σ vector in float32 (Eq. 4).

    All tensors share one shape and may differ in dtype. Each policy is subtracted from the base
    before anything is added up, since the differences are small and the weights are not. ``out``
    and ``spare`` are float32 memory of that shape to work in, φ in ``out``.
    """
    origin = base.float()
    phi: Tensor | None = None
    for sign, group in ((1, positives), (-1, negatives)):
        for policy in group:
            delta = _float32(policy, out if phi is None else spare).sub_(origin)
            if phi is None:
                phi = delta if sign > 0 else delta.neg_()
            else:
                phi.add_(delta, alpha=sign)
    for vector in vectors:
        if phi is None:
            phi = _float32(vector, out)
        else:
            phi.add_(vector if vector.dtype is torch.float32 else _float32(vector, spare))
    if phi is None:
        return torch.zeros_like(origin) if out is None else out.zero_()
    return phi


def _float32(tensor: Tensor, out: Tensor | None) -> Tensor:
    """Return a copy in float32, in ``out`` if there is one."""
    return tensor.to(torch.float32, copy=True) if out is None else out.copy_(tensor)


def keep_largest(phi: Tensor, density: float) -> Tensor:
    """Return ``phi`` with all but its ``density`` largest-magnitude elements set to zero.

    Exactly ``max(1, int(density · n))`` elements stay; among equals the first ones do.
    """
    if density >= 1 or phi.numel() == 0:
        return phi
    if density <= 0:
        return torch.zeros_like(phi)
    # Compared by their bits, so that NaN is larger than anything and cannot get lost.
    size = phi.abs().flatten().view(torch.int32)
    count = max(1, int(density * size.numel()))
    threshold = size.kthvalue(size.numel() - count + 1).values
    keep = size > threshold
    ties = size == threshold
    keep |= ties & (ties.cumsum(0) <= count - keep.sum())
    return torch.where(keep.view_as(phi), phi, torch.zeros_like(phi))


def capped_eta(eta: float, phi: Tensor, base: Tensor, limit: float | None) -> float:
    """Return ``eta``, reduced where ‖eta·phi‖ would exceed ``limit``·‖base‖.

    Rounded to float32, so that a difference in the last digits of a norm cannot show.
    """
    if limit is None:
        return eta
    size = abs(eta) * norm(phi)
    bound = limit * norm(base.float())
    if size <= bound:
        return eta
    share = bound / size if size else float("nan")  # a base that is not finite has no bound
    return float(torch.tensor(eta * share, dtype=torch.float32))


def orthogonalize(phis: Sequence[Tensor]) -> list[Tensor]:
    """Return each vector without its projections on those before it (modified Gram-Schmidt)."""
    done: list[Tensor] = []
    for phi in phis:
        rest = phi
        for other in done:
            square = square_sum(other)
            if square:
                share = torch.tensor(square_sum(rest, other) / square, dtype=torch.float32)
                rest = rest - other * float(share)
        done.append(rest)
    return done


def consensus(steps: Sequence[Tensor], rule: SignConsensus) -> Tensor:
    """Return Σ of those elements of the steps η·φ that have the elected sign.

    The sign of an element is elected over preferences as in TIES (Yadav et al. 2023): by the sum
    of the steps, or by the count of their signs; a tie elects +. What is not finite in
    any step makes NaN. The first step may be overwritten. Raises ``PvMergeError`` for an unknown rule.
    """
    refuse_unknown("sign_consensus", rule, SignConsensus)
    if rule == "none" or len(steps) < 2:
        total = steps[0]
        for step in steps[1:]:
            total += step
        return total
    total = torch.zeros_like(steps[0])
    for step in steps:
        total += step if rule == "sum" else _sign(step)
    elected = (total >= 0).to(total.dtype).mul_(2).sub_(1)
    kept = torch.zeros_like(total)
    for step in steps:
        kept += torch.where(_sign(step) == elected, step, torch.zeros_like(step))
        kept += torch.where(step.isfinite(), torch.zeros_like(step), torch.nan)
    return kept


def _sign(step: Tensor) -> Tensor:
    """Return 1, 0 or −1; 0 for NaN, of which torch's own function says now this and now that."""
    return (step > 0).to(step.dtype) - (step < 0).to(step.dtype)
