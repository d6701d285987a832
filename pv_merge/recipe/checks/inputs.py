"""What can be wrong with one input of a recipe, from its headers, config and manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.fit import shape_problems
from pv_merge.artifacts.manifest import Manifest, read_manifest
from pv_merge.artifacts.reference import parse_reference
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.recipe import Recipe


class CheckedInput:
    """An input's folder, with whatever its manifest says of its base."""

    def __init__(self, model: str, base_model: str) -> None:
        self.model = model
        self.reference = parse_reference(model)
        self.over_base = self.reference.over_base
        self.folder = Path(self.reference.name)
        self.problem: str | None = None
        try:
            self.folder = self.reference.folder
        except PvMergeError as error:
            self.problem = error.message
        self.usable = self.folder.is_dir()
        self.adapter = self.usable and is_adapter(self.folder)
        self.manifest = read_manifest(self.folder) or Manifest()

    @property
    def is_vector(self) -> bool:
        """Whether the folder is a preference vector, by its manifest."""
        return self.manifest.is_vector

    @property
    def base_sha256(self) -> str | None:
        """The hash of the base's weights, where the manifest has it."""
        return self.manifest.made_from.weights_sha256


def input_findings(
    item: CheckedInput, polarity: str | None, recipe: Recipe, base: Checkpoint
) -> Iterator[Finding]:
    """Yield what is wrong between an input, what the recipe says of it, and the base."""
    if not item.usable:
        yield Finding(
            "error",
            item.problem
            or f"{item.folder}: no such folder (paths are relative to the current folder; a name on "
            "the Hub has no ./ before it)",
        )
        return
    if item.over_base and item.reference.base != recipe.base_model:
        yield Finding(
            "error",
            f"{item.model}: is an adapter over {item.reference.base}, not over {recipe.base_model}",
        )
    if item.is_vector and not item.over_base and polarity in ("positive", "negative"):
        yield Finding(
            "error",
            f"{item.model}: is an extracted vector, so its polarity is vector, not {polarity}",
        )
    if item.over_base and polarity == "vector":
        yield Finding(
            "error",
            f"{item.model}: to mergekit this is the base with the adapter merged in; its polarity is positive",
        )
    if not item.is_vector and not item.adapter and polarity == "vector":
        yield Finding(
            "error",
            f"{item.model}: is a model, not a difference; its polarity is positive or negative (make a vector with pv-merge extract)",
        )
    trained = item.manifest.polarity
    if (
        trained
        and polarity in ("positive", "negative")
        and trained != polarity
        and not item.is_vector
    ):
        yield Finding(
            "warning",
            f"{item.model}: was trained as the {trained} policy, but the recipe says {polarity}",
        )
    if item.adapter:
        if not item.over_base:
            yield Finding(
                "note",
                f"{item.model}: is an adapter: pv-merge run takes it, mergekit-yaml wants {recipe.base_model}+{item.folder} with polarity positive, or a dense vector",
            )
        elif not item.is_vector or base_is_narrow(base):
            yield Finding(
                "note",
                f"{item.model}: mergekit-yaml merges the adapter in the base's dtype first (and needs --lora-merge-cache); pv-merge run applies it in float32",
            )
        for line in Adapter(item.folder).problems(base):
            yield Finding("error", line)
        return
    other = Checkpoint(item.folder)
    for line in shape_problems(base, other):
        yield Finding("error", line)
    missing = [name for name in base.names if name not in other]
    extra = [name for name in other.names if name not in base]
    if missing:
        yield Finding(
            "error",
            f"{item.folder}: lacks {_several(missing)}, which the base has; mergekit cannot merge it",
        )
    if extra:
        tied = (
            "; its head is its own, the base's is tied to the embeddings"
            if "lm_head.weight" in extra
            else "; it would be dropped"
        )
        yield Finding("error", f"{item.folder}: has {_several(extra)}, which the base lacks{tied}")
    yield from _configs(item, base, other)


def base_is_narrow(base: Checkpoint) -> bool:
    """Return whether any weight of the base is stored in 16 bits."""
    return any(info.dtype in ("BF16", "F16") for info in base.infos.values())


def _configs(item: CheckedInput, base: Checkpoint, other: Checkpoint) -> Iterator[Finding]:
    mine, theirs = base.config, other.config
    for key in (
        "model_type",
        "num_hidden_layers",
        "hidden_size",
        "vocab_size",
        "tie_word_embeddings",
    ):
        if key in mine and key in theirs and mine[key] != theirs[key]:
            yield Finding(
                "error",
                f"{item.folder}: has {key} {theirs[key]}, the base {mine[key]}; is it of another base?",
            )
    names = [folder / "tokenizer.json" for folder in (base.folder, other.folder)]
    if all(name.exists() for name in names):
        first, second = (read_object(name).get("model", {}).get("vocab") for name in names)
        if first is not None and second is not None and first != second:
            yield Finding(
                "error",
                f"{item.folder}: its tokenizer has another vocabulary than the base's; the same row means another token",
            )


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
