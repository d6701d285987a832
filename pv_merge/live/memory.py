"""Whether a model fits into memory, from its headers, before anything is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight, by the dtype that a model is loaded in."""

SPARE = 0.5e9
"""Bytes beside the weights: libraries, activations and the answers so far."""


def refuse_too_large(base: Checkpoint, dtype: str) -> None:
    """Raise ``PvMergeError`` if the weights of ``base`` in ``dtype`` do not fit into free memory."""
    infos = base.infos.values()
    weights = sum(math.prod(info.shape) for info in infos)
    needed = weights * WIDTHS[dtype] + SPARE
    free = free_memory()
    if needed > free:
        narrower = "; --dtype bfloat16 halves it" if WIDTHS[dtype] == 4 else ""
        raise PvMergeError(
            f"{base}: {weights / 1e9:.2g} billion weights in {dtype} need {needed / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB of memory are free{narrower}"
        )


def free_memory() -> float:
    """Return the bytes that a process here may still take: of the machine, or of its container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)
