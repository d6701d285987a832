"""Which tensors a merge writes, in which dtype, and what each is made of: the rules of stock mergekit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from pv_merge.arithmetic.low_rank_rows import Factors
from pv_merge.arithmetic.stored import NAMED, is_weight, promoted
from pv_merge.arithmetic.surveys import needs_survey
from pv_merge.arithmetic.terms import PreferenceInputs
from pv_merge.arithmetic.windows import NEGATIVE, POSITIVE, VECTOR, Rules, Strength, Sums
from pv_merge.artifacts.byte_ranges import Range, ranges
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.recipe.opened import OpenRecipe, Part, Stored

Source = Range | Factors
"""Where an input's elements come from."""


@dataclass(frozen=True)
class Sheet:
    """Outputs of one weight that are made in the same pass: they share φ."""

    targets: tuple[int, ...]
    members: tuple[int, ...]
    """The preferences that count, by their number in the weight."""
    strengths: tuple[tuple[Strength, ...], ...]
    """(targets, members)"""
    survey: bool
    """Whether a control must see the whole tensor first; there is one target then."""


@dataclass(frozen=True)
class Weight:
    """One weight, with all that is read for it."""

    name: str
    base: Range
    preferences: tuple[str, ...]
    """Those that have any input here."""
    groups: tuple[tuple[tuple[int, Source, str], ...], ...]
    """For each of them (role, where it is, what messages call it), positives first."""
    sheets: tuple[Sheet, ...]

    @property
    def is_low_rank(self) -> bool:
        """Whether any input is a product of thin matrices."""
        return any(isinstance(source, Factors) for group in self.groups for _, source, _ in group)

    @property
    def survey(self) -> bool:
        """Whether any output needs a survey of the whole tensor."""
        return any(sheet.survey for sheet in self.sheets)


class Weights(Protocol):
    """Which weights a pass writes, and from what; what messages add is its ``hint``."""

    hint: str

    @property
    def base(self) -> Checkpoint:
        """The base."""

    @property
    def places(self) -> Mapping[str, Range]:
        """The base's tensors."""

    @property
    def inputs(self) -> Mapping[Path, Mapping[str, Range]]:
        """Those of the inputs that are checkpoints, by folder."""

    def weight(self, name: str, etas: Sequence[Mapping[str, float]]) -> Weight:
        """Return what one weight is made of."""

    def rules(self, name: str, report: bool) -> Rules:
        """Return how it is merged."""


class Collector(Protocol):
    """What is told the sums of every part."""

    def take(
        self,
        name: str,
        start: int,
        preferences: Sequence[str],
        etas: np.ndarray,
        sums: Sums,
        target: int,
    ) -> None:
        """Take those of the elements of a weight from ``start`` on."""


class Layout:
    """A recipe's weights."""

    hint = " parameters: not_finite: keep_base leaves the base as it is there"
    """What messages say can be done about values that are not finite."""

    def __init__(self, opened: OpenRecipe) -> None:
        self.opened = opened
        self.places = ranges(opened.base.parts)
        self.inputs = {
            checkpoint.folder: ranges(checkpoint.parts) for checkpoint in opened.checkpoints
        }
        self._origins = {
            item.checkpoint.folder: ranges(item.checkpoint.parts) for item in opened.origins
        }
        recipe = opened.recipe
        self.cast = NAMED[recipe.dtype] if recipe.dtype else None
        self.out = NAMED[recipe.out_dtype] if recipe.out_dtype else None
        self.round_to = NAMED[recipe.round_to] if recipe.round_to else None

    @property
    def base(self) -> Checkpoint:
        """The recipe's base."""
        return self.opened.base

    @cached_property
    def elements(self) -> int:
        """Elements of all weights."""
        return sum(place.elements for place in self.places.values() if is_weight(place.dtype))

    def kernel_dtype(self, name: str) -> str:
        """Return the dtype that the arithmetic rounds to: round_to, or the inputs' promoted one."""
        if self.round_to is not None:
            return self.round_to
        if self.cast is not None:
            return self.cast
        dtype = self.places[name].dtype
        for group in self.inputs.values():
            if name in group:
                dtype = promoted(dtype, group[name].dtype)
        return promoted(dtype, "F32") if self.opened.adapters else dtype

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return (dtype, shape) of every output tensor."""
        found = {}
        for name, place in self.places.items():
            plain = not is_weight(place.dtype)
            dtype = place.dtype if plain else (self.out or self.kernel_dtype(name))
            found[name] = (dtype, place.shape)
        return found

    @property
    def read_bytes(self) -> int:
        """Bytes of base and inputs together."""
        every = [self.places, *self.inputs.values(), *self._origins.values()]
        return sum(place.nbytes for group in every for place in group.values())

    def rules(self, name: str, report: bool) -> Rules:
        """Return how one weight is merged."""
        controls = self.opened.controls
        kernel = self.kernel_dtype(name)
        return Rules(
            name,
            controls.sign_consensus,
            controls.interference == "orthogonal",
            controls.rounding == "stochastic",
            controls.seed,
            kernel,
            self.out or kernel,
            self.cast,
            controls.not_finite == "keep_base",
            report,
        )

    def weight(self, name: str, etas: Sequence[Mapping[str, float]]) -> Weight:
        """Return what one weight is made of, for outputs at these etas."""
        each = [self.opened.parts(name, said) for said in etas]
        held: dict[str, PreferenceInputs[Part]] = {}
        for group in each:
            held |= {item.name: item for item in group if item.moves}
        names = tuple(held)
        orthogonal = self.opened.controls.interference == "orthogonal"
        sheets, plain = [], []
        for number, group in enumerate(each):
            active = [item for item in group if item.moves]
            said = tuple(Strength(i.eta, i.density, i.max_relative_norm) for i in active)
            if needs_survey(said, orthogonal):
                members = tuple(names.index(item.name) for item in active)
                sheets.append(Sheet((number,), members, (said,), True))
            else:
                plain.append((number, {item.name: item.eta for item in active}))
        if plain:
            table = tuple(tuple(Strength(said.get(n, 0.0)) for n in names) for _, said in plain)
            numbers = tuple(number for number, _ in plain)
            sheets.append(Sheet(numbers, tuple(range(len(names))), table, False))
        groups = tuple(self._sources(item) for item in held.values())
        return Weight(name, self.places[name], names, groups, tuple(sheets))

    def _sources(self, item: PreferenceInputs[Part]) -> tuple[tuple[int, Source, str], ...]:
        return tuple(
            (role, self.source(part), str(part.label))
            for role, group in (
                (POSITIVE, item.positives),
                (NEGATIVE, item.negatives),
                (VECTOR, item.vectors),
            )
            for part in group
        )

    def source(self, part: Part) -> Source:
        """Return where an input's elements come from."""
        if isinstance(part, Stored):
            folder = part.checkpoint.folder
            group = self.inputs.get(folder) or self._origins.get(folder) or self.places
            return group[part.name]
        return part.factors
