"""One block of two preferences, eager or compiled; prints nanoseconds an element as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time

import torch
from torch import Tensor

from benchmarks.spent import ELEMENTS
from pv_merge.arithmetic.blocks import merge_block
from pv_merge.arithmetic.preference import preference_vector
from pv_merge.arithmetic.rounding import BLOCK, Rounder
from pv_merge.arithmetic.terms import Controls, PreferenceInputs

ETAS = (0.5, 0.25)
REPEATS = 200


def inputs() -> list[Tensor]:
    """Return base and four policies near it, in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(ELEMENTS, generator=generator) * 0.02
    noise = [torch.randn(ELEMENTS, generator=generator) * 1e-3 for _ in range(4)]
    return [base.bfloat16(), *((base + step).bfloat16() for step in noise)]


def eager(tensors: list[Tensor]) -> Tensor:
    """Merge as ``pv-merge run`` does."""
    base, *policies = tensors
    out = torch.empty_like(base)
    items = [
        PreferenceInputs(f"p{i}", eta, (policies[2 * i],), (policies[2 * i + 1],))
        for i, eta in enumerate(ETAS)
    ]
    rounder = Rounder(torch.bfloat16, "stochastic", 0, "w")
    merge_block(base, items, Controls(), rounder, 0, out)
    return out


def fused(tensors: list[Tensor], noise: Tensor) -> Tensor:
    """The same formulas in one function without branches, for ``torch.compile``."""
    base, *policies = tensors
    change = preference_vector(base, [policies[0]], [policies[1]]) * ETAS[0]
    change = change + preference_vector(base, [policies[2]], [policies[3]]) * ETAS[1]
    bits = (change + base.float()).view(torch.int32) + noise
    return (bits >> 16).to(torch.int16)


def main() -> None:
    torch.set_num_threads(1)
    if "--cold" in sys.argv:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    tensors = inputs()
    reference = eager(tensors)
    noise = Rounder(torch.bfloat16, "stochastic", 0, "w")._noise(0, 0, min(ELEMENTS, BLOCK), torch.device("cpu"))  # fmt: skip
    start = time.perf_counter()
    if sys.argv[1] == "eager":
        call = lambda: eager(tensors)  # noqa: E731
    else:
        compiled = torch.compile(fused)
        call = lambda: compiled(tensors, noise).view(torch.bfloat16)  # noqa: E731
    same = torch.equal(call().view(torch.int16), reference.view(torch.int16))
    ready = time.perf_counter() - start
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    figures = {"start_s": round(ready, 2), "ns_an_element": round(statistics.median(times) / ELEMENTS * 1e9, 3), "same_bits": same}  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
