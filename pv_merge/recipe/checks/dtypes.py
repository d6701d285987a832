"""Where dtypes would lose something: inputs rounded before subtracting, results rounded to nearest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pv_merge.arithmetic.rounding_noise import (
    DIGITS,
    noise_share,
    noise_warning,
    rounding_noise,
    stride,
)
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.weight_names import layer_of
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


def noise_findings(base: Checkpoint, inputs: list[OpenInput]) -> Iterator[Finding]:
    """Say how much of a preference is the rounding of its policies, by a few of its matrices."""
    for preference in dict.fromkeys(item.preference for item in inputs):
        own = [item for item in inputs if item.preference == preference]
        sides = [item.checkpoint for item in own if item.checkpoint is not None]
        signs = [{"positive": 1.0, "negative": -1.0}.get(item.polarity, 0.0) for item in own]
        if len(sides) == len(own) and all(signs) and all(map(_is_narrow, sides)):
            line = noise_warning(_noise_share(base, sides, signs), preference)
            if line is not None:
                yield warning(line, Topic.DTYPE)


def _noise_share(base: Checkpoint, sides: list[Checkpoint], signs: list[float]) -> float:
    noise = square = 0.0
    for name in some_matrices(base):
        if any(name not in s or s.infos[name].shape != base.infos[name].shape for s in sides):
            continue  # which is an error of its own
        every = stride(base.infos[name].elements)
        held = [side.sample(name, every) for side in (*sides, base)]
        phi = sum(sign * part for sign, part in zip(signs, held[:-1], strict=True))
        phi = phi - sum(signs) * held[-1]
        noise += phi.size * rounding_noise(phi, held[0], sides[0].infos[name].dtype, len(sides))
        square += float(np.dot(phi.astype(np.float64), phi.astype(np.float64)))
    return noise_share(noise, square)


def some_matrices(base: Checkpoint) -> list[str]:
    """Return the first, middle and last weight of a linear layer."""
    names = [
        name
        for name, info in base.infos.items()
        if len(info.shape) == 2 and info.floating and layer_of(name) is not None
    ]
    return sorted({names[0], names[len(names) // 2], names[-1]}) if names else []


def _is_narrow(checkpoint: Checkpoint) -> bool:
    return all(info.dtype in DIGITS for info in checkpoint.infos.values() if info.floating)


def finite_findings(base: Checkpoint, inputs: list[OpenInput]) -> Iterator[Finding]:
    """Read all weights, and say which hold values that are not finite."""
    import torch

    for checkpoint in [base, *(item.checkpoint for item in inputs if item.checkpoint is not None)]:
        for name in checkpoint.names:
            if not checkpoint.infos[name].floating:
                continue  # what it is instead has an error of its own
            if not bool(torch.isfinite(checkpoint.tensor(name)).all()):
                yield error(
                    f"{checkpoint}: {name} holds values that are not finite; did its training diverge?",
                    Topic.FINITE,
                )


def _is_wide(checkpoint: Checkpoint | None) -> bool:
    return checkpoint is not None and any(i.dtype == "F32" for i in checkpoint.infos.values())
