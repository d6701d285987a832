"""A merge recipe as it was read: its inputs, and what it says of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from pv_merge.data.documents import parse_yaml
from pv_merge.recipe.control import Choice, Scope
from pv_merge.recipe.controls import controls
from pv_merge.recipe.grouping import InputSettings, PreferenceSettings, resolve
from pv_merge.recipe.varying import Conditional, Number, every_value, value_at, varies

if TYPE_CHECKING:
    from pv_merge.arithmetic.choices import (
        Interference,
        NarrowDtype,
        NotFinite,
        RoundingMode,
        SignConsensus,
    )
    from pv_merge.arithmetic.terms import Controls


@dataclass(frozen=True)
class RecipeInput:
    """One input, as the recipe names it."""

    model: str
    preference: str
    """Empty where the recipe does not say it, which is an error."""
    polarity: str
    """Empty where the recipe does not say it, which is an error."""
    said: Mapping[str, Number] = field(default_factory=dict)
    """Controls that stand at the input itself."""
    base: str = ""
    """The base that it was made from, where the recipe says one of its own."""


@dataclass(frozen=True)
class Recipe:
    """A recipe. ``inputs`` are in the order of the file, without the base."""

    path: Path
    text: str
    base_model: str
    inputs: tuple[RecipeInput, ...]
    said: Mapping[str, Number] = field(default_factory=dict)
    """Controls of preferences that stand at the top, for all inputs."""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """Controls of the whole merge, as far as the recipe says them."""
    dtype: str | None = None
    out_dtype: str | None = None
    other: tuple[str, ...] = ()
    """Top-level keys that only mergekit acts on, such as ``tokenizer``."""

    @property
    def preferences(self) -> list[str]:
        """Names of the preferences, in the order in which they are first named."""
        return list(dict.fromkeys(item.preference for item in self.inputs if item.preference))

    @property
    def etas(self) -> dict[str, float | None]:
        """Each preference's eta, or None where it differs between weights."""
        found: dict[str, float | None] = {}
        for name in self.preferences:
            said = self.setting(name, "eta")
            found[name] = None if said is None or varies(said) else value_at(said, "", 0.0)
        return found

    def setting(self, preference: str, control: str) -> Number | None:
        """Return the first value that an input of ``preference`` has for a control, else the shared."""
        own = (item.said.get(control) for item in self.inputs if item.preference == preference)
        return next((value for value in own if value is not None), self.said.get(control))

    @property
    def has_transforms(self) -> bool:
        """Whether it says a control that only torch can apply."""
        return any(
            control.transform is not None and self.setting(name, key) is not None
            for key, control in controls(Scope.PREFERENCE).items()
            for name in self.preferences
        )

    def shared(self, control: str) -> Choice:
        """Return what holds for a control of the whole merge: as the recipe says, else its default."""
        value = self.choices.get(control)
        return controls(Scope.MERGE)[control].default if value is None else value

    @property
    def round_to(self) -> NarrowDtype | None:
        """The narrower dtype that the result is rounded to."""
        return cast("NarrowDtype | None", self.shared("round_to"))

    @property
    def allow_protected_negative(self) -> bool:
        """Whether a protected preference may have a negative eta."""
        return bool(self.shared("allow_protected_negative"))

    @property
    def allow_related_base(self) -> bool:
        """Whether inputs may be made from another base than the one that they are put on."""
        return bool(self.shared("allow_related_base"))

    @property
    def seed(self) -> int:
        """The seed of stochastic rounding."""
        return cast(int, self.shared("seed"))

    @property
    def controls(self) -> Controls:
        """The settings of the whole merge, as the arithmetic takes them."""
        from pv_merge.arithmetic.terms import Controls

        return Controls(
            cast("SignConsensus", self.shared("sign_consensus")),
            cast("Interference", self.shared("interference")),
            cast("RoundingMode", self.shared("rounding")),
            self.seed,
            cast("NotFinite", self.shared("not_finite")),
        )

    def nonlinear(self) -> Iterator[str]:
        """Yield each setting under which the mix is not Σ η·φ, as messages name it."""
        for key, control in controls().items():
            if control.linear:
                continue
            if control.scope is Scope.PREFERENCE:
                for name in self.preferences:
                    if any(control.acts(value) for value in self._numbers(name, key)):
                        yield f"{key} (of {name})"
            elif control.acts(self.shared(key)) and len(self.preferences) > control.between:
                yield f"{key}: {self.shared(key)}"

    def goes_negative(self, preference: str) -> bool:
        """Return whether the eta of a preference is negative for any weight."""
        return any(number < 0 for number in self._numbers(preference, "eta"))

    def _numbers(self, preference: str, control: str) -> Iterator[float]:
        """Yield every number that may hold for a preference, for any weight."""
        for item in self.inputs:
            if item.preference != preference:
                continue
            own = item.said.get(control)
            yield from every_value(own)
            filtered = isinstance(own, Conditional) or (
                isinstance(own, list) and any(isinstance(value, Conditional) for value in own)
            )
            if own is None or filtered:
                yield from every_value(self.said.get(control))

    @property
    def varies(self) -> bool:
        """Whether any setting of a preference differs between weights."""
        said = [self.said, *(item.said for item in self.inputs)]
        return any(varies(value) for values in said for value in values.values())

    def settings_for(self, name: str, t: float) -> list[InputSettings]:
        """Return every input's settings for the weight ``name``, at depth ``t`` (0 first, 1 last)."""

        def at(item: RecipeInput, key: str) -> float | None:
            own = value_at(item.said.get(key), name, t)
            return value_at(self.said.get(key), name, t) if own is None else own

        keys = controls(Scope.PREFERENCE)
        return [
            InputSettings(
                item.model,
                item.preference or None,
                item.polarity or None,
                {key: at(item, key) for key in keys},
            )
            for item in self.inputs
        ]

    def table(self, depths: Mapping[str, float]) -> dict[str, tuple[PreferenceSettings, ...]]:
        """Return what holds for every preference, for each weight (name to its depth).

        Resolved once for all, and for each weight only where a setting differs between them.
        Raises ``PvMergeError`` where that is not the same for all inputs of a preference.
        """
        if not self.varies:
            return dict.fromkeys(depths, resolve(self.settings_for("", 0.0)))
        return {name: resolve(self.settings_for(name, depth)) for name, depth in depths.items()}

    def text_with(self, etas: Mapping[str, float], header: Sequence[str] | None = None) -> str:
        """Return the recipe's YAML with other etas; see ``text_with_etas``."""
        return text_with_etas(self.text, etas, header)


def text_with_etas(
    text: str, etas: Mapping[str, float], header: Sequence[str] | None = None
) -> str:
    """Return a recipe's YAML with other etas, under the comment lines ``header``.

    Without one the recipe's own first comment lines stay, and the text as it is if no eta changes.
    """
    if not etas and header is None:
        return text
    data = parse_yaml(text, "recipe")
    for item in data["models"]:
        said = item.get("parameters") or {}
        if said.get("preference") in etas:
            said["eta"] = float(etas[said["preference"]])
    if header is None:
        header = list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return "".join(f"{line}\n" for line in header) + body
