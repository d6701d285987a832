"""The points of a sweep: ``--eta polite=-1,0,1`` read, checked and multiplied out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.recipe.controls import checked_eta

LARGE = 64
"""Points above which a sweep asks before it starts."""

Axes = dict[str, list[float]]
"""Values of eta of each swept preference, ascending."""


def parse_axes(options: Sequence[str]) -> Axes:
    """Return what ``NAME=NUMBER,NUMBER`` options say, as written; ``checked_axes`` says if it fits."""
    axes: Axes = {}
    for option in options:
        name, equals, text = option.partition("=")
        name = name.strip()
        if not equals:
            raise PvMergeError(
                f"--eta {option}: expected PREFERENCE=NUMBER,NUMBER, such as polite=-1,0,1"
            )
        if name in axes:
            raise PvMergeError(f"--eta {option}: {name} is given twice; put its values in one list")
        axes[name] = _numbers(option, text)
    return axes


def checked_axes(values: Mapping[str, Sequence[float]], preferences: Sequence[str]) -> Axes:
    """Return the axes of a grid, ascending.

    Raises ``PvMergeError`` for a preference that the recipe does not have, a value that is not
    finite, and where the whole grid is a single point.
    """
    if not values:
        raise PvMergeError("give --eta PREFERENCE=-1,0,1; the recipe has " + ", ".join(preferences))
    axes: Axes = {}
    for name, said in values.items():
        if name not in preferences:
            raise PvMergeError(
                f"--eta {name}: the recipe has no preference {name!r}{did_you_mean(name, preferences)}"
            )
        if not said:
            raise PvMergeError(f"eta of {name}: expected numbers, got none")
        axes[name] = sorted({checked_eta(value, f"eta of {name}") + 0.0 for value in said})
    if count(axes) == 1:
        point = ", ".join(f"{name}={values[0]:g}" for name, values in axes.items())
        raise PvMergeError(
            f"a grid of one point ({point}) shows no effect of eta; give two values or more, or use "
            "pv-merge evaluate"
        )
    return axes


def count(axes: Axes) -> int:
    """Return the number of points."""
    return math.prod(len(values) for values in axes.values())


def points(axes: Axes, etas: Mapping[str, float | None]) -> list[dict[str, float | None]]:
    """Return every point, with all of the recipe's preferences (``etas``) in each."""
    return [
        {**etas, **dict(zip(axes, values, strict=True))}
        for values in itertools.product(*axes.values())
    ]


def base_point(etas: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the point at which every vector is off."""
    return dict.fromkeys(etas, 0.0)


def shown_values(values: Sequence[float]) -> list[float]:
    """Return the values at which answers are shown: −1, 0, 1, else first, middle, last."""
    usual = [value for value in (-1.0, 0.0, 1.0) if value in values]
    if len(usual) >= 2:
        return usual
    return sorted({values[0], values[len(values) // 2], values[-1]})


def shown_points(axes: Axes, etas: Mapping[str, float | None]) -> list[dict[str, float | None]]:
    """Return the points at which answers are shown: along each axis, the other axes nearest 0."""
    home = {name: min(values, key=abs) for name, values in axes.items()}
    found: list[dict[str, float | None]] = []
    for name, values in axes.items():
        for value in shown_values(values):
            point = {**etas, **home, name: value}
            if point not in found:
                found.append(point)
    return found


def _numbers(option: str, text: str) -> list[float]:
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            raise PvMergeError(f"--eta {option}: {part.strip()!r} is not a number") from None
        if not math.isfinite(value):
            raise PvMergeError(f"--eta {option}: {part.strip()} is not a finite number")
        values.append(value + 0.0)
    return values
