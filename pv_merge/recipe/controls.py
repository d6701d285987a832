"""The controls of a merge: one record of each, from which everything else takes it.

Reading and checking a recipe, mergekit's schema, export, live models and serving all go by this
record.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import get_args

from pv_merge.arithmetic.choices import (
    Interference,
    NarrowDtype,
    NotFinite,
    RoundingMode,
    SignConsensus,
)
from pv_merge.recipe.control import Control, Scope

FLOAT32_MAX = 3.4028234663852886e38


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
