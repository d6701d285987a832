"""How a merge's inputs group into preferences, and the one place where eta is resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pv_merge.errors import PvMergeError, Topic, did_you_mean
from pv_merge.recipe.control import Scope
from pv_merge.recipe.controls import controls

if TYPE_CHECKING:
    from pv_merge.arithmetic.terms import PreferenceInputs

Part = TypeVar("Part")

POLARITIES = ("positive", "negative", "vector")


@dataclass(frozen=True)
class InputSettings:
    """What is said of one input, for one tensor."""

    model: str
    """How the recipe names the input, for messages."""
    preference: str | None
    polarity: str | None
    values: Mapping[str, float | None]
    """By control; None where it is not said."""


@dataclass(frozen=True)
class Problem:
    """One line about settings that cannot be merged."""

    text: str
    topic: Topic
    about: tuple[str, str] | None = None
    """The preference and the control that it is about, if it is one."""


@dataclass(frozen=True)
class PreferenceSettings:
    """What holds for one preference, for one tensor."""

    name: str
    values: tuple[tuple[str, float], ...]
    """(control, value) of all that is said, eta among them."""

    def value(self, control: str) -> float | None:
        """Return a control's value, or None where it is not said."""
        return dict(self.values).get(control)

    @property
    def eta(self) -> float:
        """The merge-time coefficient."""
        return dict(self.values)["eta"]

    def holding(
        self,
        eta: float,
        positives: Iterable[Part] = (),
        negatives: Iterable[Part] = (),
        vectors: Iterable[Part] = (),
    ) -> PreferenceInputs[Part]:
        """Return the preference as the arithmetic takes it, at ``eta``."""
        from pv_merge.arithmetic.terms import PreferenceInputs

        said, known = dict(self.values), controls(Scope.PREFERENCE)
        return PreferenceInputs(
            self.name,
            eta,
            tuple(positives),
            tuple(negatives),
            tuple(vectors),
            said.get("density", 1.0),
            said.get("max_relative_norm"),
            tuple(
                transform(said[name])
                for name, control in known.items()
                if name in said and (transform := control.transform) is not None
            ),
        )


def settings_problems(settings: Sequence[InputSettings]) -> list[Problem]:
    """Return what is missing, unknown, or disagrees between inputs."""
    problems = []
    for item in settings:
        if not item.preference:
            text = f"{item.model}: has no preference; is the key misspelt?"
            problems.append(Problem(text, Topic.SYNTAX))
        if item.polarity is None:
            said = f"has no polarity; it is one of {', '.join(POLARITIES)}"
            problems.append(Problem(f"{item.model}: {said}", Topic.POLARITY))
        elif item.polarity not in POLARITIES:
            hint = did_you_mean(item.polarity, POLARITIES)
            said = f"unknown polarity {item.polarity!r}{hint}"
            problems.append(Problem(f"{item.model}: {said}", Topic.POLARITY))
    for name, group in _groups(settings).items():
        for key, control in controls(Scope.PREFERENCE).items():
            topic = control.topic
            values = sorted({v for item in group if (v := item.values.get(key)) is not None})
            if len(values) > 1:
                said = " and ".join(f"{value:g}" for value in values)
                text = f"{name}: its inputs disagree on {key} ({said}); say it once"
                problems.append(Problem(text, topic, (name, key)))
            elif not values and control.required:
                text = f"{name}: none of its inputs has an {key}; it has no default"
                text += " (is the key misspelt?)"
                problems.append(Problem(text, topic, (name, key)))
    return problems


def resolve(settings: Sequence[InputSettings]) -> tuple[PreferenceSettings, ...]:
    """Return what holds for every preference, in the order in which the recipe first names them.

    Raises ``PvMergeError`` with the first problem that ``settings_problems`` finds.
    """
    for problem in settings_problems(settings):
        raise PvMergeError(problem.text, problem.topic)
    found = []
    for name, group in _groups(settings).items():
        values: dict[str, float] = {}
        for key in controls(Scope.PREFERENCE):
            said = [value for item in group if (value := item.values.get(key)) is not None]
            if said:
                values[key] = said[0]
        found.append(PreferenceSettings(name, tuple(values.items())))
    return tuple(found)


def group_inputs(
    settings: Sequence[InputSettings], parts: Sequence[Part]
) -> list[PreferenceInputs[Part]]:
    """Return every preference with its parts, one for each of ``settings``.

    Raises ``PvMergeError`` with the first problem that ``settings_problems`` finds.
    """
    pairs = list(zip(settings, parts, strict=True))
    return [
        item.holding(
            item.eta,
            *(
                [
                    part
                    for said, part in pairs
                    if (said.preference, said.polarity) == (item.name, side)
                ]
                for side in POLARITIES
            ),
        )
        for item in resolve(settings)
    ]


def _groups(settings: Sequence[InputSettings]) -> dict[str, list[InputSettings]]:
    groups: dict[str, list[InputSettings]] = {}
    for item in settings:
        if item.preference:
            groups.setdefault(item.preference, []).append(item)
    return groups
