"""The settings of a merge's inputs, and how they group into preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pv_merge.errors import PvMergeError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from pv_merge.arithmetic.blocks import PreferenceInputs

POLARITIES = ("positive", "negative", "vector")


@dataclass(frozen=True)
class InputSettings:
    """What a recipe says of one input, for one tensor."""

    model: str
    """How the recipe names the input, for messages."""
    preference: str | None
    polarity: str | None
    eta: float | None
    density: float | None = None
    max_relative_norm: float | None = None


def settings_problems(settings: Sequence[InputSettings]) -> list[str]:
    """Return one line for each thing that is missing, unknown, or disagrees between inputs."""
    problems = []
    for item in settings:
        if not item.preference:
            problems.append(f"{item.model}: has no preference; is the key misspelt?")
        if item.polarity is None:
            problems.append(f"{item.model}: has no polarity; it is one of {', '.join(POLARITIES)}")
        elif item.polarity not in POLARITIES:
            hint = did_you_mean(item.polarity, POLARITIES)
            problems.append(f"{item.model}: unknown polarity {item.polarity!r}{hint}")
    for name in dict.fromkeys(item.preference for item in settings if item.preference):
        group = [item for item in settings if item.preference == name]
        for key in ("eta", "density", "max_relative_norm"):
            values = sorted({v for item in group if (v := getattr(item, key)) is not None})
            if len(values) > 1:
                said = " and ".join(f"{value:g}" for value in values)
                problems.append(f"{name}: its inputs disagree on {key} ({said}); say it once")
            elif not values and key == "eta":
                problems.append(
                    f"{name}: none of its inputs has an eta; it has no default (is the key misspelt?)"
                )
    return problems


def group_inputs(
    settings: Sequence[InputSettings], tensors: Sequence[Tensor]
) -> list[PreferenceInputs]:
    """Return the preferences in the order in which the recipe first names them.

    Raises ``PvMergeError`` with the first problem that ``settings_problems`` finds.
    """
    from pv_merge.arithmetic.blocks import PreferenceInputs

    problems = settings_problems(settings)
    if problems:
        raise PvMergeError(problems[0])
    groups: dict[str, dict[str, list[Tensor]]] = {}
    values: dict[str, dict[str, float | None]] = {}
    for item, tensor in zip(settings, tensors, strict=True):
        assert item.preference is not None and item.polarity is not None
        parts = groups.setdefault(item.preference, {polarity: [] for polarity in POLARITIES})
        parts[item.polarity].append(tensor)
        said = values.setdefault(
            item.preference, dict.fromkeys(("eta", "density", "max_relative_norm"))
        )
        for key in said:
            if said[key] is None:
                said[key] = getattr(item, key)
    result = []
    for name, parts in groups.items():
        said = values[name]
        eta, density = said["eta"], said["density"]
        assert eta is not None
        result.append(
            PreferenceInputs(
                name,
                eta,
                tuple(parts["positive"]),
                tuple(parts["negative"]),
                tuple(parts["vector"]),
                1.0 if density is None else density,
                said["max_relative_norm"],
            )
        )
    return result
