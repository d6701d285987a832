"""Whether the inputs of a recipe were made from its base."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pv_merge.artifacts.base_hash import cheap_hash, from_other_bases, same_base, weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import Topic
from pv_merge.recipe.checks.finding import Finding, error, note
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.own_base import noted
from pv_merge.recipe.recipe import Recipe

RELATED = 0.5
"""Cosine of one matrix below which two models are not of one base: fine-tuning leaves it near 1,
unrelated weights near 0."""


ALLOW = "parameters: allow_related_base: true puts it on this one all the same"
"""What messages say can be done about another base."""


def base_findings(
    recipe: Recipe, inputs: list[OpenInput], base: Checkpoint, deep: bool
) -> Iterator[Finding]:
    """Compare the bases that manifests name; where none does, a weight that few policies move.

    Where the recipe allows another base, only what is unlike it altogether is an error here.
    """
    base_model = recipe.base_model
    said = {item.model: item.base_sha256 for item in inputs if item.base_sha256}
    if said and not recipe.allow_related_base:
        own = weights_hash(base) if deep else cheap_hash(base)
        if own is None:
            yield note(
                f"{base_model} was not compared with the base that the manifests "
                "name, which takes reading it; --deep does",
                Topic.BASE,
            )
            said = {}
        for model in from_other_bases(said, own or ""):
            yield error(
                f"{model}: was made from another base than {base_model} (its manifest's hash of the base's weights differs); {ALLOW}",
                Topic.BASE,
            )
    if not recipe.allow_related_base:
        yield from _said_bases(inputs, base)
    name = _probe(base)
    own_probe: np.ndarray | None = None  # read once
    for item in inputs:
        if (
            item.checkpoint is None
            or item.is_vector
            or item.base_sha256
            or item.polarity == "vector"
        ):
            continue
        if name is None or name not in item.checkpoint:
            continue
        if own_probe is None:
            own_probe = _flat(base, name)
        cosine = _cosine(own_probe, _flat(item.checkpoint, name))
        if cosine < RELATED:
            yield error(
                f"{item.model}: its {name} is unlike the base's (cosine {cosine:.2f}); was it trained from {base_model}?",
                Topic.BASE,
            )


def _said_bases(inputs: list[OpenInput], base: Checkpoint) -> Iterator[Finding]:
    """Compare what the recipe itself says at an input."""
    for item in inputs:
        if item.said_base and same_base(item.own_base, noted(base)) is not True:
            yield error(
                f"{item.model}: says base: {item.said_base}, which is not {base}; {ALLOW}",
                Topic.BASE,
            )


def _probe(base: Checkpoint) -> str | None:
    """Return the smallest matrix, which is cheap to compare and moves little in fine-tuning."""
    matrices = [
        name
        for name, info in base.infos.items()
        if len(info.shape) == 2 and info.dtype.startswith(("F", "BF"))
    ]
    return min(
        matrices,
        key=lambda name: (base.infos[name].shape[0] * base.infos[name].shape[1], name),
        default=None,
    )


def _flat(checkpoint: Checkpoint, name: str) -> np.ndarray:
    return checkpoint.float32(name).ravel().astype(np.float64)


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    if left.shape != right.shape:
        return 0.0
    if np.array_equal(left, right):
        return 1.0
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale else 0.0
