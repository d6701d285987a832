"""The live part of the benchmark: a grid on a live model, and the switch of eta against ``add_``."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def grid(recipe_path: str, base: str, *axes: str) -> None:
    """Load the base once and set every point of a grid of p0 and p1; nothing is written."""
    from transformers import AutoModelForCausalLM

    from pv_merge.live.weights import LiveMerge
    from pv_merge.recipe.opening import open_recipe

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    live = LiveMerge(open_recipe(recipe_path), model)
    for values in itertools.product(*(map(float, axis.split(",")) for axis in axes)):
        live.set({f"p{number}": value for number, value in enumerate(values)})


def switch(hidden: int = 576, layers: int = 30) -> dict[str, Any]:
    """Time ``PreferenceController.set``, dense and low-rank, and an in-place add over the same bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from pv_merge import PreferenceController, PreferenceVector
    from pv_merge.arithmetic.low_rank import LowRank

    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=1536, num_hidden_layers=layers, vocab_size=49152,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    weights = {
        name: p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name
    }
    dense = PreferenceVector("d", {name: torch.randn_like(p) * 1e-3 for name, p in weights.items()})
    thin = PreferenceVector(
        "t",
        {
            name: LowRank(torch.randn(16, p.shape[1]), torch.randn(p.shape[0], 16), 1e-3)
            for name, p in weights.items()
        },
    )
    changes = {name: dense.dense(name) for name in weights}

    def add() -> None:
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.add_(changes[name], alpha=1e-9)

    add_s = _median(add)
    control = PreferenceController(model, {"d": dense})
    etas = itertools.cycle((0.5, -0.5))
    dense_s = _median(lambda: control.set(d=next(etas)))
    control.close()
    control = PreferenceController(model, {"t": thin})
    low_s = _median(lambda: control.set(t=next(etas)))
    return {
        "bytes_of_weights": sum(p.nbytes for p in weights.values()),
        "plain_add_s": round(add_s, 5),
        "dense_set_s": round(dense_s, 5),
        "dense_rate_of_add": round(add_s / dense_s, 3),
        "low_rank_set_ms": round(low_s * 1000, 3),
    }


def _median(call: Callable[[], None], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    if sys.argv[1] == "grid":
        grid(*sys.argv[2:])
    else:
        print(json.dumps(switch(), indent=2))
