"""Low-rank changes of a weight: a product of two thin matrices, and what is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pv_merge.arithmetic.low_rank_rows import Factors, dense

if TYPE_CHECKING:
    from torch import Tensor

from pv_merge.errors import PvMergeError, Topic


@dataclass(frozen=True)
class LowRank:
    """One weight's change as a product: ``scale · B @ A``, transposed where the layer is."""

    a: Tensor
    """(rank, in_features)"""
    b: Tensor
    """(out_features, rank)"""
    scale: float
    transposed: bool = False
    """Whether the layer stores its weight as (in, out), as GPT-2's Conv1D does."""
    embedding: bool = False
    """Whether the layer is a lookup table, whose A and B PEFT stores under other names."""

    def dense(self) -> Tensor:
        """Return the change in float32, in the shape of the layer's weight."""
        import torch

        return torch.from_numpy(dense(self.factors())).to(self.a.device)

    def factors(self) -> Factors:
        """Return the same without torch, in float32."""
        a, b = (part.detach().float().cpu().numpy() for part in (self.a, self.b))
        return Factors(a, b, self.scale, self.transposed)

    def stored(self, transposed: bool) -> LowRank:
        """Return the same change for a layer that stores its weight the other way: BA = (AᵀBᵀ)ᵀ."""
        if self.transposed == transposed:
            return self
        return replace(self, a=self.b.T, b=self.a.T, transposed=transposed)


def concatenated(parts: Sequence[tuple[float, LowRank]], name: str = "") -> LowRank:
    """Return Σ coefficient · change as one change of the summed rank, exactly.

    The scale of each part goes into B, so that the whole has scale 1: [c₁s₁B₁ | c₂s₂B₂] [A₁; A₂].
    It is stored as a lookup table's if any part is, else the way the first one is. Raises
    ``PvMergeError`` where the parts are not of one shape; ``name`` says of which weight.
    """
    import torch

    embedding = any(part.embedding for _, part in parts)
    transposed = embedding or parts[0][1].transposed
    held = [(coefficient, part.stored(transposed)) for coefficient, part in parts]
    if len({(part.b.shape[0], part.a.shape[1]) for _, part in held}) > 1:
        raise PvMergeError(
            f"{name}: the vectors' shapes differ; are they of the same base?", Topic.BASE
        )
    a = torch.cat([part.a.float() for _, part in held])
    b = torch.cat(
        [part.b.float() * (coefficient * part.scale) for coefficient, part in held], dim=1
    )
    return LowRank(a, b, 1.0, transposed, embedding)


def summed(vectors: Iterable[tuple[float, Mapping[str, LowRank]]]) -> dict[str, LowRank]:
    """Return Σ coefficient · vector, weight by weight, of (coefficient, changes by weight)."""
    parts: dict[str, list[tuple[float, LowRank]]] = {}
    for coefficient, changes in vectors:
        for name, change in changes.items():
            parts.setdefault(name, []).append((coefficient, change))
    return {name: concatenated(held, name) for name, held in parts.items()}


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
    import torch

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
    import torch

    left, inner_left = torch.linalg.qr(b.double())
    right, inner_right = torch.linalg.qr(a.double().T)
    u, s, vt = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    root = s[:rank].sqrt()
    kept_a = root[:, None] * (vt[:rank] @ right.T)
    kept_b = (left @ u[:, :rank]) * root
    return kept_a.to(a.dtype), kept_b.to(b.dtype), float((s[rank:] ** 2).sum())
