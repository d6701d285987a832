"""The preference arithmetic, on single tensors; the only place where a formula is written.

Everything here is a pure function of tensors in float32, and elementwise unless it says otherwise,
so that the result of a merge does not depend on how the work is cut into chunks, shards or threads.
Equations are those of "Adaptive Helpfulness-Harmlessness Alignment with Preference Vectors"
(EACL 2026, arXiv 2504.20106).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pv_merge.rounding import BLOCK

SignConsensus = Literal["none", "sum", "count"]
Interference = Literal["none", "orthogonal"]


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
    for start in range(0, left.numel(), BLOCK):
        a, b = left[start : start + BLOCK].double(), right[start : start + BLOCK].double()
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


def truncated_product(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Return (a, b) of rank ``rank`` with ``b @ a`` closest to the given one, and ‖what is lost‖².

    ``a`` is (r, in), ``b`` is (out, r). Of the thin factors b = Q₁R₁ and aᵀ = Q₂R₂ only the small
    R₁R₂ᵀ = USVᵀ is decomposed, since b a = Q₁ (USVᵀ) Q₂ᵀ has the same singular values. In float64.
    """
    left, inner_left = torch.linalg.qr(b.double())
    right, inner_right = torch.linalg.qr(a.double().T)
    u, s, vt = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    root = s[:rank].sqrt()
    kept_a = root[:, None] * (vt[:rank] @ right.T)
    kept_b = (left @ u[:, :rank]) * root
    return kept_a.to(a.dtype), kept_b.to(b.dtype), float((s[rank:] ** 2).sum())


def sign_disagreement(phis: Sequence[Tensor]) -> tuple[int, int]:
    """Return (elements that both signs claim, elements that at least two vectors move)."""
    up = torch.zeros_like(phis[0], dtype=torch.int8)
    down = torch.zeros_like(up)
    for phi in phis:
        up += (phi > 0).to(torch.int8)
        down += (phi < 0).to(torch.int8)
    return int(((up > 0) & (down > 0)).sum()), int((up + down > 1).sum())


def singular_interference(phis: Sequence[Tensor], rank: int) -> float:
    """Return the singular task interference ‖(UᵀU − I) Σ (VᵀV − I)‖₁ of matrices (out, in).

    U, V and Σ concatenate the top ``rank`` singular vectors and values of every matrix
    (Gargiulo et al. 2025; the paper's Appendix F). It is 0 when the spaces are orthogonal.
    """
    left, values, right = [], [], []
    for phi in phis:
        u, s, vt = torch.linalg.svd(phi.double(), full_matrices=False)
        left.append(u[:, :rank])
        values.append(s[:rank])
        right.append(vt[:rank].T)
    u, v = torch.cat(left, dim=1), torch.cat(right, dim=1)
    unit = torch.eye(u.shape[1], dtype=u.dtype)
    middle = torch.diag(torch.cat(values))
    return float(((u.T @ u - unit) @ middle @ (v.T @ v - unit)).abs().sum())


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
    of the steps, or by the count of their signs; a tie elects +. The first step may be overwritten.
    """
    if rule == "none" or len(steps) < 2:
        total = steps[0]
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


def shares(gram: Sequence[Sequence[float]], reached: Sequence[float]) -> list[float]:
    """Return how much of each step arrived: c that minimizes ‖r − Σ c_p s_p‖.

    ``gram[p][q]`` is ⟨s_p, s_q⟩ of the intended steps s = η·φ, ``reached[p]`` is ⟨r, s_p⟩ of the
    change r that the output shows. Steps that are zero get the share 1.
    """
    matrix = torch.tensor(gram, dtype=torch.float64).reshape(len(reached), len(reached))
    wanted = torch.tensor(reached, dtype=torch.float64)
    moving = [index for index in range(len(reached)) if matrix[index, index] > 0]
    result = [1.0] * len(reached)
    if moving:
        part = matrix[moving][:, moving]
        solution = torch.linalg.lstsq(part, wanted[moving, None], driver="gelsd").solution
        for index, value in zip(moving, solution.flatten().tolist(), strict=True):
            result[index] = value
    return result
