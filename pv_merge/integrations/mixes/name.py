"""The name of a mix, ``helpful=0.8,polite=-0.3``: what a client writes, and its one canonical form.

A name comes from outside, so only ASCII letters, digits and ``. _ -`` can reach a preference's
name, numbers are decimal and short, and nothing of it is ever used as a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from pv_merge.errors import PvMergeError, Topic, did_you_mean
from pv_merge.integrations.mixes.settings import Settings
from pv_merge.integrations.mixes.vectors import SERVABLE, ServedVector
from pv_merge.recipe.controls import controls

MAX_LENGTH = 1024
"""Characters of a name beyond which it is not even read."""

_ETA = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?")

Terms = tuple[tuple[str, Decimal], ...]
"""(preference, eta) pairs, sorted by preference."""


@dataclass(frozen=True)
class NamedMix:
    """A mix that may be served."""

    terms: Terms
    """Those whose eta is not 0 after rounding."""
    name: str
    """The canonical name, the same for every spelling of the mix."""


def parse(text: str) -> Terms:
    """Return the terms of a name as written, unrounded; ``PvMergeError`` if it is not one."""
    if len(text) > MAX_LENGTH:
        raise PvMergeError(f"the name has {len(text)} characters; at most {MAX_LENGTH} are read")
    terms: dict[str, Decimal] = {}
    for part in text.split(","):
        name, equals, eta = (piece.strip(" ") for piece in part.partition("="))
        if not equals:
            raise PvMergeError(f"{shown(part)} has no eta; a mix is written NAME=ETA,NAME=ETA")
        if not SERVABLE.fullmatch(name):
            raise PvMergeError(f"{shown(name)} is not the name of a preference")
        if not _ETA.fullmatch(eta):
            raise PvMergeError(f"{name}: eta is {shown(eta)}, not a decimal number such as -0.3")
        if name in terms:
            raise PvMergeError(f"{name} is named twice")
        terms[name] = Decimal(eta)
    return tuple(sorted(terms.items()))


def read(text: str, vectors: dict[str, ServedVector], settings: Settings) -> NamedMix:
    """Return the mix that a client's name means; ``PvMergeError`` says why it is not served."""
    named = parse(text)
    if len(named) > settings.max_terms:
        raise PvMergeError(f"{len(named)} preferences in one mix; at most {settings.max_terms}")
    for name, eta in named:
        if name not in vectors and name in controls():
            raise PvMergeError(
                f"{name} is a control of merges; a served mix has preferences and their eta only",
                Topic.CONTROL,
            )
        if name not in vectors:
            raise PvMergeError(f"unknown preference {name}{did_you_mean(name, vectors)}")
        _check_bounds(name, eta, settings)
    rounded = tuple((name, round_eta(eta, settings.eta_step)) for name, eta in named)
    for name, eta in rounded:
        _check_bounds(name, eta, settings)
        minimum = vectors[name].minimum
        if minimum is not None and eta < minimum and not settings.allow_protected_negative:
            raise PvMergeError(
                f"{name} is a protected preference and its eta {eta_text(eta)} is below "
                f"{eta_text(minimum)}; the server must allow this"
            )
    moving = tuple((name, eta) for name, eta in rounded if eta)
    rank = sum(vectors[name].rank for name, _ in moving)
    if settings.max_rank is not None and rank > settings.max_rank:
        raise PvMergeError(f"the mix has rank {rank}; the server takes {settings.max_rank}")
    return NamedMix(moving, canonical(moving or rounded[:1]))


def round_eta(eta: Decimal, step: Decimal) -> Decimal:
    """Return the multiple of ``step`` next to ``eta``, and 0 rather than -0."""
    return (eta / step).to_integral_value(ROUND_HALF_EVEN) * step + 0


def canonical(terms: Terms) -> str:
    """Return the one name of the terms; ``parse`` gives them back exactly."""
    return ",".join(f"{name}={eta_text(eta)}" for name, eta in sorted(terms))


def eta_text(eta: Decimal) -> str:
    """Return an eta without exponent, trailing zeros or the sign of a zero."""
    text = f"{eta:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def shown(text: str) -> str:
    """Return a client's text as it may stand in a log: quoted, escaped, in ASCII, short."""
    cut = text if len(text) <= 80 else f"{text[:80]}…"
    return ascii(cut).replace("\\u2026", "...")


def _check_bounds(name: str, eta: Decimal, settings: Settings) -> None:
    if not settings.eta_min <= eta <= settings.eta_max:
        raise PvMergeError(
            f"{name}: eta {eta} is outside "
            f"{eta_text(settings.eta_min)} to {eta_text(settings.eta_max)}"
        )
