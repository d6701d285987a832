"""Where dtypes would lose something: inputs rounded before subtracting, results rounded to nearest."""

from __future__ import annotations

from collections.abc import Iterator

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import Topic
from pv_merge.recipe.checks.finding import Finding, error, warning
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.recipe import Recipe

NARROW = ("bfloat16", "float16")


def dtype_findings(recipe: Recipe, base: Checkpoint, inputs: list[OpenInput]) -> Iterator[Finding]:
    """Say where a result in float32 would be rounded to nearest, or inputs before subtracting."""
    held = [item for item in inputs if item.checkpoint is not None]
    wide = [item.model for item in held if _is_wide(item.checkpoint)]
    if recipe.dtype in NARROW and wide:
        yield warning(
            f"dtype: {recipe.dtype} rounds {wide[0]} before anything is subtracted, which loses most of a small delta; leave dtype out",
            Topic.DTYPE,
        )
    if recipe.out_dtype not in NARROW:
        return
    kernel = recipe.round_to or recipe.dtype
    if kernel is None:
        float32 = _is_wide(base) or bool(wide) or len(held) < len(inputs)
        kernel = "float32" if float32 else recipe.out_dtype
    if kernel != recipe.out_dtype:
        yield warning(
            f"out_dtype is {recipe.out_dtype}, but the result is {kernel} and would be rounded to nearest, which loses small changes; add parameters: round_to: {recipe.out_dtype}",
            Topic.OUTPUT,
        )


def finite_findings(base: Checkpoint, inputs: list[OpenInput]) -> Iterator[Finding]:
    """Read all weights, and say which hold values that are not finite."""
    import torch

    for checkpoint in [base, *(item.checkpoint for item in inputs if item.checkpoint is not None)]:
        for name in checkpoint.names:
            tensor = checkpoint.tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                yield error(
                    f"{checkpoint}: {name} holds values that are not finite; did its training diverge?",
                    Topic.FINITE,
                )


def _is_wide(checkpoint: Checkpoint | None) -> bool:
    return checkpoint is not None and any(i.dtype == "F32" for i in checkpoint.infos.values())
