"""Export for serving engines: a recipe's vectors in the form that another program takes.

A target is one file with an ``ExportTarget``, and one line in ``TARGETS`` or in another package's
entry points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import EXPORT_MANIFEST
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.merging.mix import LowRankMix, nonlinear_controls
from pv_merge.recipe.checks.finding import Finding, note
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.opening import Found, open_recipe
from pv_merge.registry import Registry
from pv_merge.version import __version__

ABOUT_MERGED_MODELS = (Topic.MERGEKIT, Topic.OUTPUT)
"""What the check says of these is about a merged model on disk, not about an adapter."""

Advance = Callable[[int, int], None]
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
    quantize: str | None = None
    """llama.cpp's type for the weights of a whole model, such as ``Q4_K_M``."""
    mix: bool = False
    """One adapter that is the whole mix, where the program would take one for each vector."""


@dataclass(frozen=True)
class ExportTarget:
    """A program that vectors are written for."""

    help: str
    """What is written, in a few words."""
    write: Callable[[OpenRecipe, Path, ExportOptions, Manifest, Advance], None]
    """Writes into a folder, and adds to the manifest what it wrote."""
    check: Callable[[OpenRecipe, ExportOptions], None] = lambda opened, options: None
    """Raises ``PvMergeError`` where the program could not hold the vectors."""
    usage: Callable[[Manifest, str], list[str]] = lambda manifest, folder: []
    """Returns what was written, and the commands that use it, in lines."""
    max_rank: int | None = None
    """The program's limit, where no other is said."""
    whole: bool = False
    """Whether it holds merged weights, so that every control of a recipe applies."""
    takes: frozenset[str] = frozenset()
    """Options that not every target takes: ``quantize``, ``mix``."""


TARGETS: Registry[ExportTarget] = Registry(
    "export target",
    "pv_merge.export_targets",
    {
        "peft": "pv_merge.integrations.peft:PEFT",
        "gguf": "pv_merge.integrations.llama_cpp:GGUF",
        "gguf-model": "pv_merge.integrations.gguf_model:GGUF_MODEL",
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
    quantize: str | None = None,
    mix: bool = False,
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> Manifest:
    """Write a recipe's vectors for another program into a new folder; return the manifest.

    ``to`` is ``peft`` (one adapter that is the whole mix, its eta baked in, for PEFT and vLLM),
    ``gguf`` (one adapter for each preference, whose scale in llama.cpp is its eta, or with ``mix``
    one for all, eta baked in), ``gguf-model`` (the merged model, by llama.cpp's own converter and
    with ``quantize`` its quantizer), or what another package registers. ``rank`` truncates each weight's change, and the manifest tells the error;
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
    limit = target.max_rank if max_rank is None else max_rank
    options = ExportOptions(rank, limit, dtype, quantize, mix)
    _refuse_options(target, to, options)
    refuse_existing(Path(output))
    opened = open_for_export(recipe, options, found, whole=target.whole)
    target.check(opened, options)
    manifest = _manifest(opened, to, options)
    with new_folder(Path(output)) as work:
        target.write(opened, work, options, manifest, advance)
        write_json(work / EXPORT_MANIFEST, manifest)
    return manifest


def _refuse_options(target: ExportTarget, to: str, options: ExportOptions) -> None:
    """Raise ``PvMergeError`` for an option that a target would ignore."""
    said = {"quantize": options.quantize is not None, "mix": options.mix}
    for name in (name for name, given in said.items() if given and name not in target.takes):
        raise PvMergeError(f"--{name} does not apply to --to {to}")
    if target.whole and (options.rank is not None or options.dtype != "float32"):
        raise PvMergeError(
            f"--rank and --dtype are of adapters, and --to {to} writes whole weights; their dtype is the "
            "recipe's out_dtype"
        )


def open_for_export(
    path: str | Path, options: ExportOptions, found: Found, *, whole: bool = False
) -> OpenRecipe:
    """Return the inputs of a recipe that the check has no error for.

    Of an adapter, unless it is to be merged ``whole``, controls must be linear.
    """
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
    if whole:
        found(findings)
        return opened
    raise_all(nonlinear_controls(recipe), Topic.CONTROL)  # whichever target it is
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


def refuse_rank(mix: LowRankMix, what: str, options: ExportOptions) -> None:
    """Raise ``PvMergeError`` for a mix whose rank is over the engine's limit."""
    if options.max_rank is not None and mix.rank > options.max_rank:
        raise PvMergeError(
            f"{what}: its adapter has rank {mix.rank}, over the limit of {options.max_rank} (--max-rank); "
            f"say --rank {options.max_rank} for a truncated one, whose error is then told"
        )


def measures(mix: LowRankMix) -> Manifest:
    """Return what a manifest says of a mix: its rank, what truncation lost, and what it lacks."""
    said: dict[str, Any] = {"rank": mix.rank, "relative_error": mix.relative_error}
    return {**said, "left_out": list(mix.left_out)} if mix.left_out else said


def _manifest(opened: OpenRecipe, target: str, options: ExportOptions) -> Manifest:
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


def rank_text(said: Manifest) -> str:
    """Return ``measures`` in words."""
    text = f"rank {said['rank']}"
    if said["relative_error"]:
        text += f", truncated with relative error {said['relative_error']:.2e}"
    left: list[str] = said.get("left_out", [])
    if left:
        text += f" ({left[0]} and the like left out, {len(left)} in all)"
    return text
