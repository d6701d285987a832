"""Everything that can be wrong with a recipe, found before any weight is read in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.manifest import said_in
from pv_merge.artifacts.protection import negative_problem
from pv_merge.artifacts.reference import local_folder, parse_reference
from pv_merge.errors import PvMergeError
from pv_merge.recipe.checks.bases import base_findings
from pv_merge.recipe.checks.finding import Finding
from pv_merge.recipe.checks.inputs import CheckedInput, input_findings
from pv_merge.recipe.recipe import Recipe, parse_recipe
from pv_merge.recipe.schema import Conditional


def check(path: str | Path, *, deep: bool = False) -> list[Finding]:
    """Return every finding of a recipe.

    ``deep`` also reads all weights, for values that are not finite, and hashes those of a large
    base, to compare it with the base that a manifest names; a small one is hashed at any rate,
    and a hash is remembered.

    >>> import pv_merge
    >>> [finding.level for finding in pv_merge.check("recipe.yml") if finding.level == "error"]
    []
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
    inputs = [CheckedInput(item.model, recipe.base_model) for item in recipe.inputs]
    for item, said in zip(inputs, recipe.inputs, strict=True):
        try:
            for finding in input_findings(item, said.parameters.polarity, recipe, base):
                yield Finding(finding.level, f"{where}: {finding.text}")
        except PvMergeError as error:
            item.usable = False
            yield Finding("error", f"{where}: {error.message}")
    yield from base_findings(recipe, inputs, base, deep)
    yield from _output_dtype(recipe, base, inputs)
    if deep:
        yield from _finite(recipe, base, inputs)
    yield from _protected(recipe, inputs)


def _local_name(where: str, model: str) -> Iterator[Finding]:
    for part in parse_reference(model).parts:
        if Path(part).is_dir() and part.count("/") < 2:
            yield Finding(
                "warning",
                f"{where}: {part} has fewer than two slashes, so mergekit takes it for a name on the "
                f"Hub when it writes its card, which fails offline; write ./{part.removeprefix('./')}"
                f"{'/' if part.startswith('./') else ''}",
            )


def _output_dtype(
    recipe: Recipe, base: Checkpoint, inputs: list[CheckedInput]
) -> Iterator[Finding]:
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


def _stores(item: CheckedInput, dtype: str) -> bool:
    return item.usable and not item.adapter and _stores_checkpoint(Checkpoint(item.folder), dtype)


def _stores_checkpoint(checkpoint: Checkpoint, dtype: str) -> bool:
    return any(info.dtype == dtype for info in checkpoint.infos.values())


def _finite(recipe: Recipe, base: Checkpoint, inputs: list[CheckedInput]) -> Iterator[Finding]:
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


def _protected(recipe: Recipe, inputs: list[CheckedInput]) -> Iterator[Finding]:
    negative = [name for name in recipe.preferences if _has_negative(recipe.setting(name, "eta"))]
    folders = {item.model: str(item.folder) for item in inputs}
    for problem in protected_problems(recipe, negative, folders):
        yield Finding("error", f"{recipe.path}: {problem}")


def protected_problems(
    recipe: Recipe, negative: Iterable[str], folders: Mapping[str, str] | None = None
) -> list[str]:
    """Return a line for each protected preference among those whose eta is to be ``negative``.

    ``folders`` says where an input lies, if not where the recipe names it.
    """
    if recipe.parameters.allow_protected_negative:
        return []
    places = folders or {}
    found = []
    for name in negative:
        models = [item.model for item in recipe.inputs if item.parameters.preference == name]
        said = [said_in(places.get(m, parse_reference(m).name), name) for m in models]
        problem = negative_problem(name, said)
        if problem:
            found.append(problem)
    return found


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
