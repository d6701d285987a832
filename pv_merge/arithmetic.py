"""The preference arithmetic, on single tensors; the only place where a formula is written.

Everything here is a pure function of tensors in float32, and elementwise unless it says otherwise,
so that the result of a merge does not depend on how the work is cut into chunks, shards or threads.
Equations are those of "Adaptive Helpfulness-Harmlessness Alignment with Preference Vectors"
(EACL 2026, arXiv 2504.20106).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pv_merge.rounding import Rounder, RoundingMode

CHUNK = 1 << 18
"""Elements handled at a time: the float32 scratch stays in the second-level cache."""

SignConsensus = Literal["none", "sum", "count"]
Interference = Literal["none", "orthogonal"]


@dataclass(frozen=True)
class PreferenceInputs:
    """One preference's tensors of one name, all of one shape, and how strongly they count."""

    name: str
    eta: float
    """Merge-time coefficient η; any sign."""
    positives: tuple[Tensor, ...] = ()
    """Weights θ+ of positive policies."""
    negatives: tuple[Tensor, ...] = ()
    """Weights θ− of negative policies."""
    vectors: tuple[Tensor, ...] = ()
    """Vectors that were extracted before, as they are (no base in them)."""
    density: float = 1.0
    """Fraction of φ's elements to keep, the largest in magnitude."""
    max_relative_norm: float | None = None
    """Upper bound on ‖η·φ‖ / ‖base‖ of this tensor."""


@dataclass(frozen=True)
class Controls:
    """What is decided once for a whole merge."""

    sign_consensus: SignConsensus = "none"
    interference: Interference = "none"
    rounding: RoundingMode = "stochastic"
    seed: int = 0
    """Seed of the noise of stochastic rounding."""


def preference_vector(
    base: Tensor,
    positives: Sequence[Tensor] = (),
    negatives: Sequence[Tensor] = (),
    vectors: Sequence[Tensor] = (),
) -> Tensor:
    """Return φ = Σ(positive − base) − Σ(negative − base) + Σ vector in float32 (Eq. 4).

    All tensors share one shape and may differ in dtype. Each policy is subtracted from the base
    before anything is added up, since the differences are small and the weights are not.
    """
    origin = base.float()
    phi: Tensor | None = None
    for sign, group in ((1, positives), (-1, negatives)):
        for policy in group:
            delta = policy.float() - origin
            if phi is None:
                phi = delta if sign > 0 else delta.neg_()
            else:
                phi.add_(delta, alpha=sign)
    for vector in vectors:
        if phi is None:
            phi = vector.float().clone()
        else:
            phi.add_(vector.float())
    return torch.zeros_like(origin) if phi is None else phi


def combine(base: Tensor, terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return ``base + Σ eta·phi`` in float32 (Eq. 5). All tensors share one shape."""
    total = base.float().clone()
    for eta, phi in terms:
        total += phi.float() * eta
    return total


def keep_largest(phi: Tensor, density: float) -> Tensor:
    """Return ``phi`` with all but its ``density`` largest-magnitude elements set to zero.

    Exactly ``max(1, int(density · n))`` elements stay; among equals the first ones do.
    """
    if density >= 1 or phi.numel() == 0:
        return phi
    if density <= 0:
        return torch.zeros_like(phi)
    size = phi.abs().flatten()
    count = max(1, int(density * size.numel()))
    threshold = size.kthvalue(size.numel() - count + 1).values
    keep = size > threshold
    ties = size == threshold
    keep |= ties & (ties.cumsum(0) <= count - keep.sum())
    return torch.where(keep.view_as(phi), phi, torch.zeros_like(phi))


def square_sum(tensor: Tensor, other: Tensor | None = None) -> float:
    """Return Σ tensor² (or Σ tensor·other) in float64.

    Rows of 512 elements are summed first, then the rows, so that no sum is split between threads
    and the result is the same for any number of them.
    """
    left = tensor.detach().flatten()
    right = left if other is None else other.detach().flatten()
    total = 0.0
    for start in range(0, left.numel(), CHUNK):
        a, b = left[start : start + CHUNK].double(), right[start : start + CHUNK].double()
        product = torch.nn.functional.pad(a * b, (0, -a.numel() % 512))
        total += float(product.view(-1, 512).sum(1).sum())
    return total


def norm(tensor: Tensor) -> float:
    """Return the Frobenius norm."""
    return float(square_sum(tensor) ** 0.5)


def cosine(left: Tensor, right: Tensor) -> float:
    """Return the cosine of two tensors of one shape, seen as vectors; 0 where one is zero."""
    scale = norm(left) * norm(right)
    return square_sum(left, right) / scale if scale else 0.0


def low_rank_dot(a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor) -> float:
    """Return the inner product of ``b1 @ a1`` and ``b2 @ a2`` without forming either.

    ⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ), in float64; a is (rank, in), b is (out, rank).
    """
    inner = b1.double().T @ b2.double()
    return float((inner * (a1.double() @ a2.double().T)).sum())


def truncated(phi: Tensor, rank: int | None, energy: float | None) -> tuple[Tensor, Tensor]:
    """Return (a, b) with ``b @ a`` the best approximation of the matrix ``phi`` (Eckart-Young).

    ``phi`` is (out, in), a is (rank, in), b is (out, rank). The rank is ``rank``, or the smallest
    that keeps the share ``energy`` of ‖phi‖².
    """
    u, s, vt = torch.linalg.svd(phi.float(), full_matrices=False)
    if rank is None:
        share = (s.double() ** 2).cumsum(0)
        goal = (energy if energy is not None else 1.0) * float(share[-1])
        rank = int((share < goal).sum()) + 1
    rank = max(1, min(rank, s.numel()))
    root = s[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


def capped_eta(eta: float, phi: Tensor, base: Tensor, limit: float | None) -> float:
    """Return ``eta``, reduced where ‖eta·phi‖ would exceed ``limit``·‖base‖.

    Rounded to float32, so that a difference in the last digits of a norm cannot show.
    """
    if limit is None:
        return eta
    size = abs(eta) * norm(phi)
    bound = limit * norm(base)
    if size <= bound:
        return eta
    return float(torch.tensor(eta * (bound / size), dtype=torch.float32))


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
    of the steps, or by the count of their signs; a tie elects +.
    """
    if rule == "none" or len(steps) < 2:
        total = steps[0].clone()
        for step in steps[1:]:
            total += step
        return total
    total = torch.zeros_like(steps[0])
    for step in steps:
        total += step if rule == "sum" else step.sign()
    elected = (total >= 0).to(total.dtype).mul_(2).sub_(1)
    kept = torch.zeros_like(total)
    for step in steps:
        kept += torch.where(step.sign() == elected, step, torch.zeros_like(step))
    return kept


def merge(
    base: Tensor,
    preferences: Sequence[PreferenceInputs],
    controls: Controls | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    name: str = "",
    out: Tensor | None = None,
) -> Tensor:
    """Return base + Σ η·φ (Eq. 4 and 5) with all controls, rounded to ``dtype``.

    All tensors share one shape. ``name``, the tensor's name, and ``controls.seed`` seed the noise
    of stochastic rounding. A tensor that nothing moves keeps its exact bits where ``dtype`` is
    the base's own. ``out``, if given, is a contiguous tensor of ``dtype`` to write into.
    """
    controls = controls or Controls()
    active = [item for item in preferences if item.eta != 0]
    result = torch.empty_like(base, dtype=dtype, memory_format=torch.contiguous_format) if out is None else out
    rounder = Rounder(dtype, controls.rounding, controls.seed, name)
    flat_base, flat_result = base.reshape(-1), result.view(-1)
    whole = _whole_tensor_steps(base, active, controls)
    parts = _flat_parts(active)
    moved = False
    for start in range(0, flat_base.numel(), CHUNK):
        window = slice(start, start + CHUNK)
        piece = flat_base[window]
        if whole is not None:
            steps = [step[window] for step in whole]
        else:
            steps = [_step(piece, item, part, window) for item, part in zip(active, parts, strict=True)]
        if not steps:
            break
        change = consensus(steps, controls.sign_consensus)
        moved = moved or bool(change.any())
        rounder.round(piece.float() + change, start, flat_result[window])
    if not moved:
        if base.dtype == dtype:
            result.copy_(base)
        else:
            for start in range(0, flat_base.numel(), CHUNK):
                window = slice(start, start + CHUNK)
                rounder.round(flat_base[window].float(), start, flat_result[window])
    return result


_Parts = tuple[list[Tensor], list[Tensor], list[Tensor]]


def _flat_parts(preferences: Sequence[PreferenceInputs]) -> list[_Parts]:
    return [
        (
            [tensor.reshape(-1) for tensor in item.positives],
            [tensor.reshape(-1) for tensor in item.negatives],
            [tensor.reshape(-1) for tensor in item.vectors],
        )
        for item in preferences
    ]


def _step(base: Tensor, item: PreferenceInputs, part: _Parts, window: slice) -> Tensor:
    """Return η·φ of one chunk, where φ needs no control that looks at the whole tensor."""
    groups = [[tensor[window] for tensor in group] for group in part]
    return preference_vector(base, *groups).mul_(item.eta)


def _whole_tensor_steps(
    base: Tensor, preferences: Sequence[PreferenceInputs], controls: Controls
) -> list[Tensor] | None:
    """Return every η·φ, flat and in full, if a control must see whole tensors; else None."""
    orthogonal = controls.interference == "orthogonal" and len(preferences) > 1
    limited = any(p.density < 1 or p.max_relative_norm is not None for p in preferences)
    if not orthogonal and not limited:
        return None
    phis = [
        keep_largest(preference_vector(base, p.positives, p.negatives, p.vectors), p.density)
        for p in preferences
    ]
    if orthogonal:
        phis = orthogonalize(phis)
    return [
        (phi * capped_eta(p.eta, phi, base, p.max_relative_norm)).reshape(-1)
        for p, phi in zip(preferences, phis, strict=True)
    ]
