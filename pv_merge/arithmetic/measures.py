"""Measures of vectors: norms, cosines, disagreement and interference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.views import fit_for_kernels, products

LANES = 1024
"""Sums that run side by side."""


def square_sum(tensor: Tensor, other: Tensor | None = None) -> float:
    """Return Σ tensor² (or Σ tensor·other) in float64: by kernels on a CPU, to the same bits."""
    pair = [tensor] if other is None else [tensor, other]
    # What is wider than float32 stays so.
    if fit_for_kernels(pair) and all(part.dtype is not torch.float64 for part in pair):
        return products(pair, [(0, len(pair) - 1)])[0]
    return square_sum_in_torch(tensor, other)


def square_sum_in_torch(tensor: Tensor, other: Tensor | None = None) -> float:
    """Return Σ tensor² (or Σ tensor·other) in float64: the reference.

    Rows of 1024 elements are added up place by place, then the places, half to half, so that the
    result is the same for any number of threads and on any device. Kernels add in the same order.
    """
    left = tensor.detach().flatten()
    right = left if other is None else other.detach().flatten()
    lanes = torch.zeros(LANES, dtype=torch.float64, device=left.device)
    for start in range(0, left.numel(), BLOCK):
        a, b = left[start : start + BLOCK].double(), right[start : start + BLOCK].double()
        product = torch.nn.functional.pad(a * b, (0, -a.numel() % LANES))
        for row in product.view(-1, LANES):
            lanes += row
    while lanes.numel() > 1:
        half = lanes.numel() // 2
        lanes = lanes[:half] + lanes[half:]
    return float(lanes)


def norm(tensor: Tensor) -> float:
    """Return the Frobenius norm."""
    return float(square_sum(tensor) ** 0.5)


def cosine(left: Tensor, right: Tensor) -> float:
    """Return the cosine of two tensors of one shape, seen as vectors; 0 where one is zero."""
    scale = norm(left) * norm(right)
    return square_sum(left, right) / scale if scale else 0.0


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
