"""A recipe checked and opened in one go: everything that can be wrong is found while it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import unmergeable
from pv_merge.artifacts.quantized.dequantize import cached_place, unpacked_copy
from pv_merge.artifacts.quantized.formats import quantization, require
from pv_merge.artifacts.reference import local_folder, parse_reference
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.recipe.checks.dtypes import dtype_findings, finite_findings, noise_findings
from pv_merge.recipe.checks.finding import Finding, error, note, raise_errors, warning
from pv_merge.recipe.checks.fit import input_findings
from pv_merge.recipe.checks.related import related_findings
from pv_merge.recipe.checks.roles import (
    polarity_findings,
    preference_findings,
    protected_findings,
)
from pv_merge.recipe.checks.same_base import base_findings
from pv_merge.recipe.open_input import OpenInput
from pv_merge.recipe.opened import OpenRecipe
from pv_merge.recipe.reading import parse_recipe
from pv_merge.recipe.recipe import Recipe

Found = Callable[[list[Finding]], None]


def open_recipe(path: str | Path, found: Found = lambda findings: None) -> OpenRecipe:
    """Return the recipe at ``path`` with its base and inputs open; each file is opened once.

    ``found`` is told the warnings and notes. Raises ``PvMergeError`` with every error of the check,
    before any weight is read in full.
    """
    opening = _Opening(unpack=True)
    opened = opening.open(Path(path), deep=False)
    raise_errors(opening.findings)
    assert opened is not None  # only an error keeps it from being opened
    found(opening.findings)
    return opened


def check(path: str | Path, *, deep: bool = False) -> list[Finding]:
    """Return every finding of a recipe.

    ``deep`` also reads all weights, for values that are not finite, and hashes those of a large
    base, to compare it with the base that a manifest names; a small one is hashed at any rate,
    and a hash is remembered.

    >>> import pv_merge
    >>> [finding.level for finding in pv_merge.check("recipe.yml") if finding.level == "error"]
    []
    """
    opening = _Opening()
    opening.open(Path(path), deep)
    return opening.findings


@dataclass
class _Opening:
    """Opens what can be opened, and keeps what is found on the way."""

    findings: list[Finding] = field(default_factory=list)
    unpack: bool = False
    """Whether a quantized base is unpacked; a check only reads headers."""

    def open(self, path: Path, deep: bool) -> OpenRecipe | None:
        """Return the open recipe, or None where an error was found that forbids it."""
        recipe, problems = parse_recipe(path)
        self.findings += [error(problem.text, problem.topic) for problem in problems]
        if recipe is None:
            return None
        where = f"{recipe.path}: "
        self._add(where, _local_names(recipe))
        base = self._base(recipe)
        opened = None
        if base is not None:
            inputs = self._inputs(recipe, base, where)
            self._add(where, base_findings(recipe, inputs, base, deep))
            self._add(where, dtype_findings(recipe, base, inputs))
            self._add(where, noise_findings(base, inputs))
            self._add(where, finite_findings(base, inputs) if deep else [])
            self._add(where, polarity_findings(inputs))
            self._add(where, protected_findings(recipe, inputs))
            if not problems and len(inputs) == len(recipe.inputs):
                opened = self._whole(recipe, base, inputs)
            if opened is not None and recipe.allow_related_base:
                self._add(where, related_findings(opened))
        self._add(where, preference_findings(recipe))
        return opened

    def _add(self, where: str, findings: Iterable[Finding]) -> None:
        self.findings += [replace(item, text=f"{where}{item.text}") for item in findings]

    def _refused(self, recipe: Recipe, reason: PvMergeError) -> None:
        self.findings.append(error(f"{recipe.path}: {reason.message}", reason.topic))

    def _base(self, recipe: Recipe) -> Checkpoint | None:
        try:
            if not local_folder(recipe.base_model).is_dir():
                raise PvMergeError(
                    f"{recipe.base_model}: no such folder (base_model)", Topic.FOLDER
                )
            base = self._in_full(recipe, Checkpoint(recipe.base_model))
            if base is not None:
                raise_all(unmergeable(base), Topic.DTYPE)
        except PvMergeError as reason:
            self._refused(recipe, reason)
            return None
        return base

    def _in_full(self, recipe: Recipe, base: Checkpoint) -> Checkpoint | None:
        """Return the base, or its unpacked copy where it is quantized; None if that is not made yet."""
        found = quantization(base.config)
        if found is None:
            return base
        require(found, base)
        place = cached_place(base)
        if not self.unpack and not place.is_dir():
            said = (
                f"{recipe.path}: {base} is quantized with {found.method}; run unpacks it into bfloat16 "
                f"in {place.parent} first, and only then the rest can be checked"
            )
            self.findings.append(warning(said, Topic.DTYPE))
            return None
        said = f"{recipe.path}: {base} is quantized with {found.method}; it is merged as unpacked in {place}"
        self.findings.append(note(said, Topic.DTYPE))
        return unpacked_copy(base)

    def _inputs(self, recipe: Recipe, base: Checkpoint, where: str) -> list[OpenInput]:
        found = []
        for said in recipe.inputs:
            try:
                item = OpenInput(said)
                self._add(where, input_findings(item, recipe, base))
            except PvMergeError as reason:
                self._refused(recipe, reason)
            else:
                found.append(item)
        return found

    def _whole(
        self, recipe: Recipe, base: Checkpoint, inputs: list[OpenInput]
    ) -> OpenRecipe | None:
        try:
            return OpenRecipe(recipe, base, inputs)
        except PvMergeError as reason:
            self._refused(recipe, reason)
            return None


def _local_names(recipe: Recipe) -> Iterator[Finding]:
    for model in (recipe.base_model, *(item.model for item in recipe.inputs)):
        for part in _parts(model):
            if Path(part).is_dir() and part.count("/") < 2:
                yield warning(
                    f"{part} has fewer than two slashes, so mergekit takes it for a name on the "
                    f"Hub when it writes its card, which fails offline; write ./{part.removeprefix('./')}"
                    f"{'/' if part.startswith('./') else ''}",
                    Topic.MERGEKIT,
                )


def _parts(model: str) -> tuple[str, ...]:
    try:
        return parse_reference(model).parts
    except PvMergeError:  # told where it is opened
        return ()
