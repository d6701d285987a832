"""What a calibration wants: a figure as large as can be, others within bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.evaluation.statistics import Estimate
from pv_merge.recipe.grid import Axes

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"(?P<figure>[\w.-]+?)\s*(?P<sign><=|>=)\s*(?:(?P<factor>{_NUMBER})\s*\*\s*base|(?P<base>base)\s*(?P<shift>[-+]\s*{_NUMBER})?|(?P<bound>{_NUMBER}))",
    re.IGNORECASE,
)


MOST = 1000
"""Candidates of one preference; more would take longer to compare than to measure."""


@dataclass(frozen=True)
class Constraint:
    """``figure <= bound``, or ``>=``; the bound may be relative to the base model's figure."""

    text: str
    figure: str
    at_most: bool
    factor: float
    """Times the base's figure; 0 for an absolute bound."""
    shift: float

    def bound(self, base: Mapping[str, Estimate]) -> float:
        """Return the bound as a number."""
        return self.factor * base[self.figure].value + self.shift if self.factor else self.shift

    def slack(self, value: float, base: Mapping[str, Estimate]) -> float:
        """Return how far a value is inside the bound; negative where it breaks it."""
        distance = self.bound(base) - value
        return distance if self.at_most else -distance


def read_constraint(text: str) -> Constraint:
    """Return the constraint that ``refusal_safe<=0.1`` or ``perplexity<=1.05*base`` says."""
    found = _CONSTRAINT.fullmatch(text.strip())
    if found is None:
        raise PvMergeError(
            f"--subject-to {text!r}: expected FIGURE<=NUMBER, FIGURE<=1.05*base or FIGURE>=base-0.02"
        )
    factor = float(found["factor"]) if found["factor"] else float(bool(found["base"]))
    shift = found["bound"] or (found["shift"] or "0").replace(" ", "")
    return Constraint(text.strip(), found["figure"], found["sign"] == "<=", factor, float(shift))


def check_figures(names: Iterable[str], known: Sequence[str]) -> None:
    """Raise ``PvMergeError`` for a figure that no measure gives."""
    for name in names:
        if name not in known:
            raise PvMergeError(f"{name}: no measure gives this figure{did_you_mean(name, known)}")


Range = tuple[float, float, float]
"""The lowest and the highest eta, and the step between candidates."""

USUAL: Range = (0.0, 1.5, 0.25)


def read_ranges(options: Sequence[str]) -> dict[str, Range]:
    """Return the ranges that ``NAME=LOW:HIGH:STEP`` options say; the step is 0.25 where left out."""
    found: dict[str, Range] = {}
    for option in options:
        name, _, text = option.partition("=")
        try:
            numbers = [float(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3) or not all(math.isfinite(number) for number in numbers):
            raise PvMergeError(
                f"--range {option}: expected NAME=LOW:HIGH:STEP, such as {name}=0:1.5:0.25"
            )
        if name in found:
            raise PvMergeError(f"--range {option}: {name} is given twice")
        low, high, step = [*numbers, USUAL[2]][:3]
        found[name] = (low, high, step)
    return found


def candidates(ranges: Mapping[str, Range], preferences: Sequence[str]) -> Axes:
    """Return the candidates of each preference, ``USUAL`` where no range is given.

    Raises ``PvMergeError`` for a preference that the recipe does not have, or a range without end.
    """
    for name in ranges:
        if name not in preferences:
            raise PvMergeError(
                f"--range {name}: the recipe has no preference {name!r}{did_you_mean(name, preferences)}"
            )
    return {name: _steps(name, *ranges.get(name, USUAL)) for name in preferences}


def _steps(name: str, low: float, high: float, step: float) -> list[float]:
    if not all(math.isfinite(number) for number in (low, high, step)) or step <= 0 or high < low:
        raise PvMergeError(
            f"--range {name}={low:g}:{high:g}:{step:g}: LOW must not exceed HIGH, and STEP must be "
            "positive"
        )
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > MOST:
        raise PvMergeError(
            f"--range {name}={low:g}:{high:g}:{step:g}: has {count} candidates, over {MOST}; take a "
            "larger STEP"
        )
    return [round(low + i * step, 10) + 0.0 for i in range(count)]
