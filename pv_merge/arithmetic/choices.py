"""The rules that a merge can be told to follow, by name; an unknown one is an error everywhere."""

from __future__ import annotations

from typing import Literal, get_args

from pv_merge.errors import PvMergeError, Topic, did_you_mean

SignConsensus = Literal["none", "sum", "count"]
"""How the sign of an element is elected between preferences."""

Interference = Literal["none", "orthogonal"]
"""What is done about directions that preferences share."""

RoundingMode = Literal["stochastic", "nearest"]
"""How float32 reaches a narrower dtype."""

NarrowDtype = Literal["bfloat16", "float16"]
"""Dtypes that one can round to."""


NotFinite = Literal["refuse", "keep_base"]
"""What is done about NaN and infinity: an error, or the base's value stays there."""


def refuse_unknown(name: str, value: str, rule: object) -> None:
    """Raise ``PvMergeError`` where ``value`` is none of the literal type ``rule``."""
    known = get_args(rule)
    if value not in known:
        raise PvMergeError(f"unknown {name} {value!r}{did_you_mean(value, known)}", Topic.CONTROL)
