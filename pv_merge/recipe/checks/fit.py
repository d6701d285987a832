"""Whether an input is what the recipe says, and fits the base: its headers, config and manifest."""

from __future__ import annotations

from collections.abc import Iterator

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import kind_problems, shape_problems
from pv_merge.errors import Topic
from pv_merge.recipe.checks.finding import Finding, error, note, warning
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.recipe import Recipe

CONFIG_KEYS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "tie_word_embeddings",
)
"""Settings that a base and its policies share."""


def input_findings(item: OpenInput, recipe: Recipe, base: Checkpoint) -> Iterator[Finding]:
    """Yield what is wrong between an input, what the recipe says of it, and the base."""
    base_model = recipe.base_model
    if item.over_base and item.reference.base != base_model and not recipe.allow_related_base:
        yield error(
            f"{item.model}: is an adapter over {item.reference.base}, not over {base_model}",
            Topic.BASE,
        )
    yield from _role(item)
    if item.adapter is not None:
        yield from _adapter_note(item, base_model, base)
        for line in item.adapter.problems(base):
            yield error(line, Topic.BASE)
    if item.checkpoint is not None:
        yield from _names(base, item.checkpoint)
        yield from config_findings(base, item.checkpoint)


def _role(item: OpenInput) -> Iterator[Finding]:
    polarity, plain = item.polarity, not item.is_vector and item.adapter is None
    if item.over_base and item.adapter is None:
        yield error(
            f"{item.model}: {item.folder} is not an adapter; name it without {item.reference.base}+",
            Topic.FOLDER,
        )
    if item.is_vector and not item.over_base and polarity in ("positive", "negative"):
        yield error(
            f"{item.model}: is an extracted vector, so its polarity is vector, not {polarity}",
            Topic.POLARITY,
        )
    if item.over_base and polarity == "vector":
        yield error(
            f"{item.model}: to mergekit this is the base with the adapter merged in; its polarity is positive",
            Topic.POLARITY,
        )
    if plain and polarity == "vector":
        yield error(
            f"{item.model}: is a model, not a difference; its polarity is positive or negative (make a vector with pv-merge extract)",
            Topic.POLARITY,
        )
    trained = item.manifest.polarity
    if item.is_vector or polarity not in ("positive", "negative"):
        return
    if trained and trained != polarity:
        yield warning(
            f"{item.model}: was trained as the {trained} policy, but the recipe says {polarity}",
            Topic.POLARITY,
        )


def _adapter_note(item: OpenInput, base_model: str, base: Checkpoint) -> Iterator[Finding]:
    if not item.over_base:
        yield note(
            f"{item.model}: is an adapter: pv-merge run takes it, mergekit-yaml wants {base_model}+{item.folder} with polarity positive, or a dense vector",
            Topic.MERGEKIT,
        )
    elif not item.is_vector or base_is_narrow(base):
        yield note(
            f"{item.model}: mergekit-yaml merges the adapter in the base's dtype first (and needs --lora-merge-cache); pv-merge run applies it in float32",
            Topic.MERGEKIT,
        )


def base_is_narrow(base: Checkpoint) -> bool:
    """Return whether any weight of the base is stored in 16 bits."""
    return any(info.dtype in ("BF16", "F16") for info in base.infos.values())


def _names(base: Checkpoint, other: Checkpoint) -> Iterator[Finding]:
    for line in shape_problems(base, other):
        yield error(line, Topic.BASE)
    for line in kind_problems(base, other):
        yield error(line, Topic.DTYPE)
    missing = [name for name in base.names if name not in other]
    extra = [name for name in other.names if name not in base]
    if missing:
        yield error(
            f"{other.folder}: lacks {_several(missing)}, which the base has; mergekit cannot merge it",
            Topic.BASE,
        )
    if extra:
        tied = (
            "; its head is its own, the base's is tied to the embeddings"
            if "lm_head.weight" in extra
            else "; it would be dropped"
        )
        text = f"{other.folder}: has {_several(extra)}, which the base lacks{tied}"
        yield error(text, Topic.BASE)


def config_findings(base: Checkpoint, other: Checkpoint) -> Iterator[Finding]:
    """Yield the settings and the vocabulary in which another model differs from the base."""
    mine, theirs = base.config, other.config
    for key in CONFIG_KEYS:
        if key in mine and key in theirs and mine[key] != theirs[key]:
            yield error(
                f"{other.folder}: has {key} {theirs[key]}, the base {mine[key]}; is it of another base?",
                Topic.BASE,
            )
    first, second = base.vocabulary, other.vocabulary
    if first is not None and second is not None and first != second:
        yield error(
            f"{other.folder}: its tokenizer has another vocabulary than the base's; the same row means another token",
            Topic.BASE,
        )


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
