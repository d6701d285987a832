"""Export for serving engines: a recipe's whole mix as one LoRA adapter, with its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import EXPORT_MANIFEST
from pv_merge.artifacts.reference import without_revision
from pv_merge.errors import PvMergeError, Topic
from pv_merge.integrations.vllm.ranks import VLLM_RANKS
from pv_merge.merging.mix import Mix, low_rank_mix
from pv_merge.recipe.checks.finding import Finding, note
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.opening import Found, open_recipe
from pv_merge.recipe.recipe import Recipe
from pv_merge.version import __version__

ABOUT_MERGED_MODELS = (Topic.MERGEKIT, Topic.OUTPUT)
"""What the check says of these is about a merged model on disk, not about an adapter."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportOptions:
    """How to export."""

    rank: int | None = None
    """Truncate each weight's change to this rank; by default all of it is kept."""
    max_rank: int | None = None
    """The engine's limit: an adapter of a higher rank is refused. For PEFT and vLLM it is 512 by default."""
    dtype: str = "float32"
    """Dtype that A and B are stored in."""


def export_peft(
    path: str | Path,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> dict[str, Any]:
    """Write the recipe's mix, its eta baked in, as one adapter for PEFT and vLLM; return its manifest.

    ``found`` is told the check's warnings and what of the recipe does not apply. Raises
    ``PvMergeError`` before anything is written where an adapter cannot hold the mix.
    """
    options = options or ExportOptions()
    if options.max_rank is None:
        options = replace(options, max_rank=VLLM_RANKS[-1])
    refuse_existing(Path(output))
    opened = open_for_export(path, options, found)
    mix = low_rank_mix(opened, rank=options.rank, advance=advance)
    refuse_rank(mix, str(path), options)
    recipe = opened.recipe
    with new_folder(Path(output)) as work:
        write_low_rank(work, mix.changes, opened.base, loadable_base(recipe), options.dtype)
        manifest = {**manifest_of(opened, "peft", options), **measures(mix)}
        write_json(work / EXPORT_MANIFEST, manifest)
    return manifest


def open_for_export(path: str | Path, options: ExportOptions, found: Found) -> OpenRecipe:
    """Return the inputs of a recipe that the check has no error for."""
    if (
        options.rank is not None
        and options.max_rank is not None
        and options.rank > options.max_rank
    ):
        raise PvMergeError(f"--rank {options.rank} is over --max-rank {options.max_rank}")
    findings: list[Finding] = []
    opened = open_recipe(path, findings.extend)
    recipe = opened.recipe
    for key in recipe.other:
        raise PvMergeError(
            f"{path}: {key} changes the tokenizer, which an adapter cannot; merge with mergekit-yaml",
            Topic.MERGEKIT,
        )
    kept = [finding for finding in findings if finding.topic not in ABOUT_MERGED_MODELS]
    said = {"round_to": recipe.round_to, "out_dtype": recipe.out_dtype}
    unused = [f"{key}: {value}" for key, value in said.items() if value is not None]
    if unused:
        text = (
            f"{path}: {', '.join(unused)} concerns merged weights; the adapter is {options.dtype}"
        )
        kept.append(note(text, Topic.OUTPUT))
    found(kept)
    return opened


def refuse_rank(mix: Mix, what: str, options: ExportOptions) -> None:
    """Raise ``PvMergeError`` for a mix whose rank is over the engine's limit."""
    if options.max_rank is not None and mix.rank > options.max_rank:
        raise PvMergeError(
            f"{what}: its adapter has rank {mix.rank}, over the limit of {options.max_rank} (--max-rank); "
            f"say --rank {options.max_rank} for a truncated one, whose error is then told"
        )


def loadable_base(recipe: Recipe) -> str:
    """Return the base as PEFT loads it: a name on the Hub without its revision."""
    return without_revision(recipe.base_model)


def measures(mix: Mix) -> dict[str, Any]:
    """Return what a manifest says of a mix."""
    said: dict[str, Any] = {"rank": mix.rank, "relative_error": mix.relative_error}
    return {**said, "left_out": list(mix.left_out)} if mix.left_out else said


def manifest_of(opened: OpenRecipe, target: str, options: ExportOptions) -> dict[str, Any]:
    """Return what is known of a mix: recipe, base, and every preference with eta and lineage."""
    recipe = opened.recipe
    return {
        "kind": "export",
        "format": 1,
        "to": target,
        "dtype": options.dtype,
        "base": {"path": recipe.base_model, "weights_sha256": weights_hash(opened.base)},
        "preferences": {name: _preference(opened, name) for name in recipe.preferences},
        "recipe": recipe.text,
        "pv_merge": __version__,
    }


def _preference(opened: OpenRecipe, name: str) -> dict[str, Any]:
    eta = opened.recipe.etas[name]
    return {
        "eta": "as the recipe says, by layer or filter" if eta is None else eta,
        "inputs": [
            {"path": item.model, "polarity": item.polarity, "manifest": item.manifest.data or None}
            for item in opened.inputs
            if item.preference == name
        ],
    }
