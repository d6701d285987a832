"""Everything that can be wrong with a recipe, found before any weight is read in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pv_merge.checkpoint import Checkpoint, is_adapter
from pv_merge.errors import PvMergeError
from pv_merge.folders import read_json
from pv_merge.headers import adapter_problems, shape_problems
from pv_merge.hub_names import local_folder
from pv_merge.protection import MANIFESTS, negative_problem, said_by
from pv_merge.recipe import Recipe, parse_recipe
from pv_merge.recipe_schema import Conditional

Level = Literal["error", "warning", "note"]


HASHED_AT_ONCE = 1_000_000_000
"""Bytes of weights up to which a base is hashed without being asked; about a second."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    """error: the merge would fail or be wrong; warning: it would lose something; note: for thought."""
    text: str


class _Input:
    """An input's folder, with whatever its manifest says of its base."""

    def __init__(self, model: str, base_model: str) -> None:
        self.model = model
        self.base_part, plus, lora = model.partition("+")
        self.over_base = bool(plus)
        self.folder = Path(lora if plus else model)
        self.problem: str | None = None
        try:
            self.folder = local_folder(lora if plus else model)
        except PvMergeError as error:
            self.problem = error.message
        self.usable = self.folder.is_dir()
        self.adapter = self.usable and is_adapter(self.folder)
        self.manifest: dict[str, Any] = {}
        for name in MANIFESTS:
            if (self.folder / name).exists():
                self.manifest = read_json(self.folder / name)

    @property
    def is_vector(self) -> bool:
        return self.manifest.get("kind") == "preference_vector"

    @property
    def base_sha256(self) -> str | None:
        said = self.manifest.get("base") or self.manifest.get("base_model") or {}
        return said.get("weights_sha256") if isinstance(said, dict) else None


def check(path: str | Path, *, deep: bool = False) -> list[Finding]:
    """Return every finding of a recipe.

    ``deep`` also reads all weights, for values that are not finite, and hashes those of a large
    base, to compare it with the base that a manifest names; a small one is hashed at any rate,
    and a hash is remembered.
    """
    recipe, problems = parse_recipe(Path(path))
    found = [Finding("error", line) for line in problems]
    if recipe is not None:
        found += _folders(recipe, deep)
        found += _etas(recipe)
    return found


def raise_errors(findings: list[Finding]) -> list[Finding]:
    """Raise one ``PvMergeError`` with all errors, or return the warnings and notes."""
    errors = [finding.text for finding in findings if finding.level == "error"]
    if errors:
        raise PvMergeError("\n       ".join(errors))
    return findings


def _folders(recipe: Recipe, deep: bool) -> Iterator[Finding]:
    where = recipe.path
    for model in (recipe.base_model, *(item.model for item in recipe.inputs)):
        yield from _local_name(str(where), model)
    try:
        if not local_folder(recipe.base_model).is_dir():
            yield Finding("error", f"{where}: {recipe.base_model}: no such folder (base_model)")
            return
        base = Checkpoint(recipe.base_model)
        _ = base.config, base.infos
    except PvMergeError as error:
        yield Finding("error", f"{where}: {error.message}")
        return
    inputs = [_Input(item.model, recipe.base_model) for item in recipe.inputs]
    for item, said in zip(inputs, recipe.inputs, strict=True):
        try:
            for finding in _input(item, said.parameters.polarity, recipe, base):
                yield Finding(finding.level, f"{where}: {finding.text}")
        except PvMergeError as error:
            item.usable = False
            yield Finding("error", f"{where}: {error.message}")
    yield from _bases(recipe, inputs, base, deep)
    yield from _output_dtype(recipe, base, inputs)
    if deep:
        yield from _finite(recipe, base, inputs)
    yield from _protected(recipe, inputs)


def _local_name(where: str, model: str) -> Iterator[Finding]:
    for part in model.split("+"):
        if Path(part).is_dir() and part.count("/") < 2:
            yield Finding(
                "warning",
                f"{where}: {part} has fewer than two slashes, so mergekit takes it for a name on the "
                f"Hub when it writes its card, which fails offline; write ./{part.removeprefix('./')}"
                f"{'/' if part.startswith('./') else ''}",
            )


def _input(
    item: _Input, polarity: str | None, recipe: Recipe, base: Checkpoint
) -> Iterator[Finding]:
    if not item.usable:
        yield Finding(
            "error",
            item.problem
            or f"{item.folder}: no such folder (paths are relative to the current folder; a Hub name "
            "must be downloaded first)",
        )
        return
    if item.over_base and item.base_part != recipe.base_model:
        yield Finding(
            "error",
            f"{item.model}: is an adapter over {item.base_part}, not over {recipe.base_model}",
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
    trained = item.manifest.get("polarity")
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
        for line in adapter_problems(item.folder, base):
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


def _configs(item: _Input, base: Checkpoint, other: Checkpoint) -> Iterator[Finding]:
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
        first, second = (read_json(name).get("model", {}).get("vocab") for name in names)
        if first is not None and second is not None and first != second:
            yield Finding(
                "error",
                f"{item.folder}: its tokenizer has another vocabulary than the base's; the same row means another token",
            )


def _bases(recipe: Recipe, inputs: list[_Input], base: Checkpoint, deep: bool) -> Iterator[Finding]:
    """Compare the bases that manifests name; where none does, a weight that few policies move."""
    said = {item.model: item.base_sha256 for item in inputs if item.base_sha256}
    if said:
        from pv_merge.base_identity import known_hash, weights_hash

        size = sum(file.stat().st_size for file in base.files)
        own = weights_hash(base) if deep or size <= HASHED_AT_ONCE else known_hash(base)
        if own is None:
            yield Finding(
                "note",
                f"{recipe.path}: {recipe.base_model} was not compared with the base that the manifests "
                "name, which takes reading it; --deep does",
            )
            said = {}
        for model, value in said.items():
            if value != own:
                yield Finding(
                    "error",
                    f"{recipe.path}: {model}: was made from another base than {recipe.base_model} (its manifest's hash of the base's weights differs)",
                )
    for item, entry in zip(inputs, recipe.inputs, strict=True):
        plain = item.usable and not item.adapter and not item.is_vector
        if not plain or item.base_sha256 or entry.parameters.polarity == "vector":
            continue
        name = _probe(base)
        if name is None or name not in Checkpoint(item.folder):
            continue
        cosine = _probe_cosine(base, Checkpoint(item.folder), name)
        if cosine < 0.9:
            yield Finding(
                "error",
                f"{recipe.path}: {item.model}: its {name} is unlike the base's (cosine {cosine:.2f}); was it trained from {recipe.base_model}?",
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


def _probe_cosine(base: Checkpoint, other: Checkpoint, name: str) -> float:
    import torch

    from pv_merge.arithmetic import cosine

    left, right = base.tensor(name), other.tensor(name)
    if left.shape != right.shape:
        return 0.0
    return 1.0 if torch.equal(left, right) else cosine(left, right)


def _output_dtype(recipe: Recipe, base: Checkpoint, inputs: list[_Input]) -> Iterator[Finding]:
    """Say where a result in float32 would be rounded to nearest, or inputs before subtracting."""
    narrow = {"bfloat16": "BF16", "float16": "F16"}
    if recipe.dtype in narrow:
        wide = [item.model for item in inputs if _stores(item, "F32")]
        if wide:
            yield Finding(
                "warning",
                f"{recipe.path}: dtype: {recipe.dtype} rounds {wide[0]} before anything is subtracted, which loses most of a small delta; leave dtype out",
            )
    if recipe.out_dtype not in narrow:
        return
    kernel = recipe.parameters.round_to or recipe.dtype
    if kernel is None:
        wide_input = _stores_checkpoint(base, "F32") or any(
            _stores(item, "F32") or item.adapter for item in inputs
        )
        kernel = "float32" if wide_input else recipe.out_dtype
    if kernel != recipe.out_dtype:
        yield Finding(
            "warning",
            f"{recipe.path}: out_dtype is {recipe.out_dtype}, but the result is {kernel} and would be rounded to nearest, which loses small changes; add parameters: round_to: {recipe.out_dtype}",
        )


def _stores(item: _Input, dtype: str) -> bool:
    return item.usable and not item.adapter and _stores_checkpoint(Checkpoint(item.folder), dtype)


def _stores_checkpoint(checkpoint: Checkpoint, dtype: str) -> bool:
    return any(info.dtype == dtype for info in checkpoint.infos.values())


def _finite(recipe: Recipe, base: Checkpoint, inputs: list[_Input]) -> Iterator[Finding]:
    import torch

    folders = [
        base,
        *(Checkpoint(item.folder) for item in inputs if item.usable and not item.adapter),
    ]
    for checkpoint in folders:
        for name in checkpoint.names:
            tensor = checkpoint.tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                yield Finding(
                    "error",
                    f"{recipe.path}: {checkpoint}: {name} holds values that are not finite; did its training diverge?",
                )


def _protected(recipe: Recipe, inputs: list[_Input]) -> Iterator[Finding]:
    if recipe.parameters.allow_protected_negative:
        return
    for name in recipe.preferences:
        if not _has_negative(recipe.setting(name, "eta")):
            continue
        said = [
            said_by(item.manifest, name)
            for item, entry in zip(inputs, recipe.inputs, strict=True)
            if entry.parameters.preference == name
        ]
        problem = negative_problem(name, said)
        if problem:
            yield Finding("error", f"{recipe.path}: {problem}")


def _has_negative(setting: Any) -> bool:
    if isinstance(setting, list):
        return any(_has_negative(item) for item in setting)
    if isinstance(setting, Conditional):
        return _has_negative(setting.value)
    return setting is not None and float(setting) < 0


def _etas(recipe: Recipe) -> Iterator[Finding]:
    for name in recipe.preferences:
        roles = {
            item.parameters.polarity for item in recipe.inputs if item.parameters.preference == name
        }
        if roles == {"positive"}:
            yield Finding(
                "note",
                f"{recipe.path}: {name} has a positive policy and no negative one, so it is a plain task vector; the full vector is stronger (the paper's Table 6)",
            )
        if roles == {"negative"}:
            yield Finding("warning", f"{recipe.path}: {name} has a negative policy only")
        if recipe.setting(name, "eta") == 0:
            yield Finding("note", f"{recipe.path}: {name} has eta 0, so it does nothing")


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
