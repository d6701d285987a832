"""The kinds of measures: from their entries come the commands' options and the measures themselves.

A measure is one file with a class (``pv_merge.evaluation.measure.Measure``) and a ``MeasureKind``
that says by which option it is asked for; and one line in ``MEASURES``, or in another package's
entry points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.evaluation.measure import Measure
from pv_merge.registry import Registry

Settings = Mapping[str, Any]
"""The value of every option, by key."""


@dataclass(frozen=True)
class Option:
    """An option of the commands that measure, and a keyword of ``build_measures``."""

    flag: str
    """As it is typed, such as ``--reward-prompts``."""
    help: str
    metavar: str | None = None
    kind: type = str
    """``str``, ``int`` or ``float``."""
    default: Any = None
    minimum: int | None = None

    @property
    def key(self) -> str:
        """The option's name in Python."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class MeasureKind:
    """One kind of measure."""

    option: Option
    """Given once for each measure of this kind. Several kinds may share one."""
    build: Callable[[str, Settings], Measure]
    """Returns the measure that a value of the option asks for; raises ``PvMergeError``."""
    accepts: Callable[[str], bool] = lambda text: True
    """Whether a value of a shared option is for this kind; the first kind that takes it has it."""
    settings: tuple[Option, ...] = ()
    """Further options, which say something only beside ``option``; several kinds may share one."""


SHARED = (
    Option("--max-new-tokens", "Length of generated answers.", kind=int, default=64, minimum=1),
    Option("--temperature", "Of sampled answers; 0 is greedy.", kind=float, default=0.0),
    Option("--seed", "Of sampled answers.", kind=int, default=0, minimum=0),
    Option("--limit", "The first so many items of each file (of each label).", kind=int, minimum=1),
)
"""Options that every kind may read."""

_HERE = "pv_merge.evaluation.measures"

MEASURES: Registry[MeasureKind] = Registry(
    "measure",
    "pv_merge.measures",
    {
        "pairs": f"{_HERE}.pairs:PAIRS",
        "answers": f"{_HERE}.written:WRITTEN",
        "trait": f"{_HERE}.trait:TRAIT",
        "refusal": f"{_HERE}.refusal:REFUSAL",
        "reward": f"{_HERE}.reward:REWARD",
        "cost": f"{_HERE}.reward:COST",
        "perplexity": f"{_HERE}.perplexity:PERPLEXITY",
        "choices": f"{_HERE}.choices:CHOICES",
        "harness": f"{_HERE}.harness:HARNESS",
    },
)


def measure_options() -> list[tuple[Option, bool]]:
    """Return every option of every kind, each once, and whether it may be repeated."""
    found: dict[str, tuple[Option, bool]] = {}
    for kind in MEASURES.all().values():
        found.setdefault(kind.option.key, (kind.option, True))
        for option in kind.settings:
            found.setdefault(option.key, (option, False))
    for option in SHARED:
        found.setdefault(option.key, (option, False))
    return list(found.values())


def build_measures(**said: Any) -> list[Measure]:
    """Return the measures that options ask for, such as ``pairs=["polite=heldout.jsonl"], limit=50``.

    Raises ``PvMergeError`` for an option that no kind has, or one that says nothing beside the rest.
    """
    options = measure_options()
    known = {option.key for option, _ in options}
    for key in said:
        if key not in known:
            raise PvMergeError(f"no measure has an option {key!r}{did_you_mean(key, known)}")
    settings = {option.key: said.get(option.key, option.default) for option, _ in options}
    kinds = list(MEASURES.all().values())
    _refuse_idle(kinds, settings)
    measures = []
    for option, repeated in options:
        for text in (settings[option.key] or ()) if repeated else ():
            takers = [kind for kind in kinds if kind.option.key == option.key]
            taker = next((kind for kind in takers if kind.accepts(text)), None)
            if taker is None:
                raise PvMergeError(
                    f"{option.flag} {text}: no measure takes this; expected {option.metavar}"
                )
            measures.append(taker.build(text, settings))
    return measures


def measure(kind: str, text: str, **settings: Any) -> Measure:
    """Return one measure, by the name of its kind and what its option would say.

    ``settings`` are the other options of the kind, such as ``limit=50``. Raises ``PvMergeError``
    for a kind that is not known.

    >>> import pv_merge
    >>> pairs = pv_merge.measure("pairs", "polite=pairs.jsonl", limit=4)
    >>> pairs.size  # two answers of each pair
    8
    """
    known = MEASURES.get(kind)
    options = (*known.settings, *SHARED)
    keys = {option.key for option in options}
    for key in settings:
        if key not in keys:
            raise PvMergeError(f"{kind}: has no option {key!r}{did_you_mean(key, keys)}")
    said = {option.key: settings.get(option.key, option.default) for option in options}
    return known.build(text, said)


def _refuse_idle(kinds: list[MeasureKind], settings: Settings) -> None:
    """Raise ``PvMergeError`` for a setting that was given while no measure reads it."""
    for option in {option.key: option for kind in kinds for option in kind.settings}.values():
        users = [kind.option for kind in kinds if option in kind.settings]
        if settings[option.key] == option.default or option in [kind.option for kind in kinds]:
            continue
        if not any(settings[user.key] for user in users):
            flags = " or ".join(dict.fromkeys(user.flag for user in users))
            raise PvMergeError(f"{option.flag} does nothing by itself; give {flags} too")
