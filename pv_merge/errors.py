"""The one error that users see: what, where, and the likely cause, in one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click


class PvMergeError(click.ClickException):
    """A problem that the user can mend.

    It is a ``ClickException``, so that every click command that it reaches, ``mergekit-yaml``
    among them, prints one line and exits with 1. It is not a ``ValueError``, since pydantic would
    then wrap it in a report of several lines.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the closest of ``known``, or the whole list of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    if len(names) <= 12:
        return f"; known: {', '.join(names)}"
    return ""


def unknown_keys(given: Iterable[object], known: Iterable[str], where: str) -> list[str]:
    """Return one line for each key of ``given`` that is not in ``known``."""
    names = set(known)
    return [
        f"{where}: unknown key {str(key)!r}{did_you_mean(str(key), names)}"
        for key in given
        if key not in names
    ]


def raise_all(problems: list[str]) -> None:
    """Raise one ``PvMergeError`` that lists every problem, a line each; return if there is none."""
    if problems:
        raise PvMergeError("\n       ".join(problems))
