"""A number that may vary between weights: by layer (a gradient), or by filters on their names."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel


class Conditional(BaseModel):
    """A value for the weights whose name contains ``filter`` (for all, without one)."""

    value: float | list[float]
    filter: str | None = None


Number = float | list[float] | Conditional | list[Conditional]
"""A number; a gradient over the layers; or values by filters, the first that matches."""


def value_at(setting: Number | None, name: str, t: float) -> float | None:
    """Return a setting's value for one weight, as mergekit evaluates it.

    A list of numbers is a gradient: linear over ``t``, from the first layer (0) to the last (1).
    Of conditional values the first whose filter is part of the name counts.
    """
    if setting is None or isinstance(setting, int | float):
        return None if setting is None else float(setting)
    for item in [setting] if isinstance(setting, Conditional) else setting:
        if not isinstance(item, Conditional):
            break
        if item.filter in (None, "*") or item.filter in name:
            return value_at(item.value, name, t)
    gradient = [] if isinstance(setting, Conditional) else setting
    numbers = [item for item in gradient if not isinstance(item, Conditional)]
    if not numbers:
        return None
    scaled = t * (len(numbers) - 1)
    low = int(scaled)
    high = min(len(numbers) - 1, low + 1)
    part = scaled - low
    return float((1 - part) * numbers[low] + part * numbers[high])


def every_value(setting: Number | None) -> Iterator[float]:
    """Yield each number that stands in a setting."""
    if isinstance(setting, Conditional):
        yield from every_value(setting.value)
    elif isinstance(setting, list):
        for item in setting:
            yield from every_value(item)
    elif setting is not None:
        yield float(setting)


def varies(setting: Number | None) -> bool:
    """Return whether a setting is written as one that differs between weights."""
    return setting is not None and not isinstance(setting, int | float)
