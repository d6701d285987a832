"""What one control of a merge is: its name, whether it is linear, its type, its range.

Whether a control is linear has no default, so that nobody can forget to say it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.varying import Number, every_value

if TYPE_CHECKING:
    from pv_merge.arithmetic.terms import Transform

Choice = float | str | int | bool | None
"""A single value of a control."""


class Scope(Enum):
    """Where a control may stand."""

    PREFERENCE = "preference"
    """At any input, or at the top for all; a number, that may vary between weights."""
    MERGE = "merge"
    """At the top only."""


@dataclass(frozen=True)
class Control:
    """One key of a recipe's ``parameters``."""

    name: str
    linear: bool
    """Whether the mix stays Σ η·φ under it, so that an adapter, or scales alone, can hold it."""
    scope: Scope
    kind: type[float] | type[int] | type[bool] | tuple[str, ...]
    """Type of one value, or the words to choose from."""
    expected: str
    """What a value must be, as messages say it."""
    default: Choice = None
    allowed: Callable[[float], bool] = lambda value: True
    """Which numbers are in range."""
    neutral: tuple[Choice, ...] = (None,)
    """Values under which it does nothing."""
    required: bool = False
    """Whether each preference must have one."""
    between: bool = False
    """Whether it acts between preferences, so that it does nothing to a single one."""
    transform: Callable[[float], Transform] | None = None
    """What it makes of a whole φ, for its value; the arithmetic itself knows those without one."""

    def one(self, value: object, label: str | None = None) -> Choice:
        """Return a single value, checked; ``label`` is what messages call it.

        Raises ``PvMergeError`` (topic ``CONTROL``, of an eta ``ETA``).
        """
        if value is None:
            return None
        if isinstance(self.kind, tuple):
            if isinstance(value, str) and value in self.kind:
                return value
            raise self._problem(value, label)
        try:
            found = _ADAPTERS[self.kind].validate_python(value)
        except ValidationError:
            raise self._problem(value, label) from None
        if isinstance(found, float) and not self.allowed(found):
            raise self._problem(found, label)
        return found

    def number(self, value: object) -> Number | None:
        """Return what a recipe says of a preference's control; it may vary between weights.

        Raises ``PvMergeError`` (topic ``CONTROL``) where any number in it is out of range.
        """
        try:
            found = _NUMBER.validate_python(value)
        except (ValidationError, RecursionError):
            raise PvMergeError(
                f"{self.name} must be a number, a list of numbers, or filters with values",
                self.topic,
            ) from None
        for number in every_value(found):
            self.one(number)
        return found

    def acts(self, value: Choice) -> bool:
        """Return whether a single value does anything."""
        return value not in self.neutral

    @property
    def topic(self) -> Topic:
        """What a wrong value of it is about."""
        return Topic.ETA if self.name == "eta" else Topic.CONTROL

    def _problem(self, value: object, label: str | None) -> PvMergeError:
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        text = f"{label or self.name} must be {self.expected}, got {shown}"
        return PvMergeError(text, self.topic)


_ADAPTERS: dict[type, TypeAdapter[float] | TypeAdapter[int] | TypeAdapter[bool]] = {
    float: TypeAdapter(float),
    int: TypeAdapter(int),
    bool: TypeAdapter(bool),
}
_NUMBER: TypeAdapter[Number | None] = TypeAdapter(Number | None)
