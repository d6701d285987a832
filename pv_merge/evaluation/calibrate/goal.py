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


def read_ranges(options: Sequence[str], preferences: Sequence[str]) -> Axes:
    """Return the candidates of each preference: ``NAME=LOW:HIGH:STEP``, by default 0:1.5:0.25."""
    axes: Axes = {name: _steps(name, 0.0, 1.5, 0.25) for name in preferences}
    for option in options:
        name, _, text = option.partition("=")
        if name not in preferences:
            raise PvMergeError(
                f"--range {option}: the recipe has no preference {name!r}{did_you_mean(name, preferences)}"
            )
        try:
            numbers = [float(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3) or not all(math.isfinite(number) for number in numbers):
            raise PvMergeError(
                f"--range {option}: expected NAME=LOW:HIGH:STEP, such as {name}=0:1.5:0.25"
            )
        low, high, step = [*numbers, 0.25][:3]
        axes[name] = _steps(option, low, high, step)
    return axes


def _steps(option: str, low: float, high: float, step: float) -> list[float]:
    if step <= 0 or high < low:
        raise PvMergeError(f"--range {option}: LOW must not exceed HIGH, and STEP must be positive")
    count = math.floor((high - low) / step + 1e-9) + 1
    return [round(low + i * step, 10) + 0.0 for i in range(count)]
