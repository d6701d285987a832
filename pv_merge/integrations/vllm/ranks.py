"""The ranks that vLLM reserves memory for."""

from __future__ import annotations

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``--max-lora-rank``."""


def vllm_rank(rank: int) -> int | None:
    """Return the smallest ``--max-lora-rank`` that holds ``rank``, or None where none does."""
    return next((limit for limit in VLLM_RANKS if limit >= rank), None)
