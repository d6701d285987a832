"""Export for serving engines: a recipe's whole mix as one LoRA adapter, with its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import EXPORT_MANIFEST, read_manifest
from pv_merge.artifacts.reference import parse_reference, without_revision
from pv_merge.errors import PvMergeError
from pv_merge.integrations.vllm.ranks import VLLM_RANKS
from pv_merge.merging.mix import Mix, low_rank_mix
from pv_merge.recipe.checks.check import check, raise_errors
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.inputs import Sources
from pv_merge.recipe.recipe import Recipe, read_recipe
from pv_merge.version import __version__

Advance = Callable[[int, int], None]
Found = Callable[[list[Finding]], None]


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
    sources = open_sources(path, options, found)
    mix = low_rank_mix(sources, rank=options.rank, advance=advance)
    refuse_rank(mix, str(path), options)
    recipe = sources.recipe
    with new_folder(Path(output)) as work:
        write_low_rank(work, mix.changes, sources.base, loadable_base(recipe), options.dtype)
        manifest = {**manifest_of(sources, "peft", options), **measures(mix)}
        write_json(work / EXPORT_MANIFEST, manifest)
    return manifest


def open_sources(path: str | Path, options: ExportOptions, found: Found) -> Sources:
    """Return the inputs of a recipe that the check has no error for."""
    if (
        options.rank is not None
        and options.max_rank is not None
        and options.rank > options.max_rank
    ):
        raise PvMergeError(f"--rank {options.rank} is over --max-rank {options.max_rank}")
    findings = raise_errors(check(path))
    recipe = read_recipe(path)
    if recipe.other:
        key = next(iter(recipe.other))
        raise PvMergeError(
            f"{path}: {key} changes the tokenizer, which an adapter cannot; merge with mergekit-yaml"
        )
    said = {"round_to": recipe.parameters.round_to, "out_dtype": recipe.out_dtype}
    unused = [f"{key}: {value}" for key, value in said.items() if value is not None]
    # What the check says of dtypes is about a merged model on disk.
    kept = [f for f in findings if "out_dtype" not in f.text and "mergekit" not in f.text]
    if unused:
        text = (
            f"{path}: {', '.join(unused)} concerns merged weights; the adapter is {options.dtype}"
        )
        kept.append(Finding("note", text))
    found(kept)
    return Sources(recipe)


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


def manifest_of(sources: Sources, target: str, options: ExportOptions) -> dict[str, Any]:
    """Return what is known of a mix: recipe, base, and every preference with eta and lineage."""
    recipe = sources.recipe
    return {
        "kind": "export",
        "format": 1,
        "to": target,
        "dtype": options.dtype,
        "base": {"path": recipe.base_model, "weights_sha256": weights_hash(sources.base)},
        "preferences": {name: _preference(recipe, name) for name in recipe.preferences},
        "recipe": recipe.text,
        "pv_merge": __version__,
    }


def _preference(recipe: Recipe, name: str) -> dict[str, Any]:
    eta = recipe.etas[name]
    inputs = [item for item in recipe.inputs if item.parameters.preference == name]
    return {
        "eta": "as the recipe says, by layer or filter" if eta is None else eta,
        "inputs": [
            {
                "path": item.model,
                "polarity": item.parameters.polarity,
                "manifest": _lineage(item.model),
            }
            for item in inputs
        ],
    }


def _lineage(model: str) -> Mapping[str, Any] | None:
    manifest = read_manifest(parse_reference(model).folder)
    return manifest.data if manifest else None
