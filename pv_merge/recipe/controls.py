"""The controls of a merge: one record of each, from which everything else takes it.

Reading and checking a recipe, mergekit's schema, export, live models and serving all go by this
record. Whether a control is linear has no default, so that nobody can forget to say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, get_args

from pydantic import TypeAdapter, ValidationError

from pv_merge.arithmetic.choices import (
    Interference,
    NarrowDtype,
    NotFinite,
    RoundingMode,
    SignConsensus,
)
from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.varying import Number, every_value

if TYPE_CHECKING:
    from pv_merge.arithmetic.terms import Transform

Choice = float | str | int | bool | None
"""A single value of a control."""

FLOAT32_MAX = 3.4028234663852886e38


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


def _in_float32(value: float) -> bool:
    return isfinite(value) and abs(value) <= FLOAT32_MAX


_BUILT_IN = (
    Control(
        "eta",
        linear=True,
        scope=Scope.PREFERENCE,
        kind=float,
        expected="a finite number in float32",
        allowed=_in_float32,
        required=True,
    ),
    Control(
        "density",
        linear=False,
        scope=Scope.PREFERENCE,
        kind=float,
        expected="in (0, 1]",
        allowed=lambda value: 0 < value <= 1,
        neutral=(None, 1.0),
    ),
    Control(
        "max_relative_norm",
        linear=False,
        scope=Scope.PREFERENCE,
        kind=float,
        expected="a positive number",
        allowed=lambda value: value > 0 and _in_float32(value),
    ),
    Control(
        "sign_consensus",
        linear=False,
        scope=Scope.MERGE,
        kind=get_args(SignConsensus),
        expected="one of none, sum, count",
        default="none",
        neutral=("none",),
        between=True,
    ),
    Control(
        "interference",
        linear=False,
        scope=Scope.MERGE,
        kind=get_args(Interference),
        expected="one of none, orthogonal",
        default="none",
        neutral=("none",),
        between=True,
    ),
    Control(
        "round_to",
        linear=True,
        scope=Scope.MERGE,
        kind=get_args(NarrowDtype),
        expected="one of bfloat16, float16",
    ),
    Control(
        "rounding",
        linear=True,
        scope=Scope.MERGE,
        kind=get_args(RoundingMode),
        expected="one of stochastic, nearest",
        default="stochastic",
    ),
    Control(
        "seed",
        linear=True,
        scope=Scope.MERGE,
        kind=int,
        expected="a whole number",
        default=0,
    ),
    Control(
        "not_finite",
        linear=False,
        scope=Scope.MERGE,
        kind=get_args(NotFinite),
        expected="one of refuse, keep_base",
        default="refuse",
        neutral=("refuse",),
    ),
    Control(
        "allow_protected_negative",
        linear=True,
        scope=Scope.MERGE,
        kind=bool,
        expected="true or false",
        default=False,
    ),
    Control(
        "allow_related_base",
        linear=True,
        scope=Scope.MERGE,
        kind=bool,
        expected="true or false",
        default=False,
    ),
)

_record: dict[str, Control] = {control.name: control for control in _BUILT_IN}


def controls(scope: Scope | None = None) -> Mapping[str, Control]:
    """Return every control by name, or those of one scope."""
    return {
        name: control
        for name, control in _record.items()
        if scope is None or control.scope is scope
    }


def checked_eta(value: object, label: str = "eta") -> float:
    """Return an eta as a number; ``PvMergeError`` where it is none, or not finite in float32."""
    found = _record["eta"].one(value, label)
    assert isinstance(found, float)
    return found


def register(control: Control) -> None:
    """Add a control of preferences: from then on recipes, checks and all that carries a mix know it.

    Raises ``ValueError`` for a name that is taken, and for a control that nothing would apply.
    """
    if control.name in _record:
        raise ValueError(f"a control is called {control.name} already")
    if control.transform is None or control.scope is not Scope.PREFERENCE:
        raise ValueError(
            f"{control.name}: needs a transform of φ, else recipes would say it in vain"
        )
    _record[control.name] = control


def unregister(name: str) -> None:
    """Take out a control that ``register`` added."""
    if any(control.name == name for control in _BUILT_IN):
        raise ValueError(f"{name} is built in")
    del _record[name]
