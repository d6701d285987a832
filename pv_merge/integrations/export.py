"""Export for serving engines: a recipe's vectors in the form that another program takes.

A target is one file with an ``ExportTarget``, and one line in ``TARGETS`` or in another package's
entry points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import EXPORT_MANIFEST, read_manifest
from pv_merge.artifacts.reference import parse_reference
from pv_merge.errors import PvMergeError
from pv_merge.merging.mix import Mix
from pv_merge.recipe.checks.check import check, raise_errors
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.inputs import Sources
from pv_merge.recipe.recipe import Recipe, read_recipe
from pv_merge.registry import Registry
from pv_merge.version import __version__

Advance = Callable[[int, int], None]
Found = Callable[[list[Finding]], None]
Manifest = dict[str, Any]


@dataclass(frozen=True)
class ExportOptions:
    """How to export."""

    rank: int | None = None
    """Truncate each weight's change to this rank; by default all of it is kept."""
    max_rank: int | None = None
    """The engine's limit: an adapter of a higher rank is refused."""
    dtype: str = "float32"
    """Dtype that A and B are stored in."""


@dataclass(frozen=True)
class ExportTarget:
    """A program that vectors are written for."""

    help: str
    """What is written, in a few words."""
    write: Callable[[Sources, Path, ExportOptions, Manifest, Advance], None]
    """Writes into a folder, and adds to the manifest what it wrote."""
    check: Callable[[Sources], None] = lambda sources: None
    """Raises ``PvMergeError`` where the program could not hold the vectors."""
    usage: Callable[[Manifest, str], list[str]] = lambda manifest, folder: []
    """Returns what was written, and the commands that use it, in lines."""
    max_rank: int | None = None
    """The program's limit, where no other is said."""


TARGETS: Registry[ExportTarget] = Registry(
    "export target",
    "pv_merge.export_targets",
    {
        "peft": "pv_merge.integrations.peft:PEFT",
        "gguf": "pv_merge.integrations.llama_cpp:GGUF",
    },
)


def export(
    recipe: str | Path,
    output: str | Path,
    to: str = "peft",
    *,
    rank: int | None = None,
    max_rank: int | None = None,
    dtype: str = "float32",
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> Manifest:
    """Write a recipe's vectors for another program into a new folder; return the manifest.

    ``to`` is ``peft`` (one adapter that is the whole mix, its eta baked in, for PEFT and vLLM),
    ``gguf`` (one adapter for each preference, whose scale in llama.cpp is its eta), or what another
    package registers. ``rank`` truncates each weight's change, and the manifest tells the error;
    by default nothing is lost. Over ``max_rank`` an adapter is refused. ``dtype`` is that of A and
    B. ``found`` is told the check's warnings and what of the recipe does not apply, ``advance``
    (weights done, weights in all).

    Raises ``PvMergeError``, and writes nothing, where the program could not hold the mix.

    >>> import pv_merge
    >>> manifest = pv_merge.export("recipe.yml", "adapter", "peft")
    >>> manifest["rank"], manifest["relative_error"]
    (8, 0.0)
    """
    target = TARGETS.get(to)
    options = ExportOptions(rank, target.max_rank if max_rank is None else max_rank, dtype)
    refuse_existing(Path(output))
    sources = open_sources(recipe, options, found)
    target.check(sources)
    manifest = _manifest(sources, to, options)
    with new_folder(Path(output)) as work:
        target.write(sources, work, options, manifest, advance)
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


def measures(mix: Mix) -> Manifest:
    """Return what a manifest says of a mix: its rank, what truncation lost, and what it lacks."""
    said: dict[str, Any] = {"rank": mix.rank, "relative_error": mix.relative_error}
    return {**said, "left_out": list(mix.left_out)} if mix.left_out else said


def _manifest(sources: Sources, target: str, options: ExportOptions) -> Manifest:
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


def rank_text(said: Manifest) -> str:
    """Return ``measures`` in words."""
    text = f"rank {said['rank']}"
    if said["relative_error"]:
        text += f", truncated with relative error {said['relative_error']:.2e}"
    left: list[str] = said.get("left_out", [])
    if left:
        text += f" ({left[0]} and the like left out, {len(left)} in all)"
    return text
