"""What a line that begins with a slash does in ``pv-merge chat``."""

from __future__ import annotations

from collections.abc import Mapping

from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.live.chat.engine import SIDES
from pv_merge.live.chat.session import ChatSession

HELP = {
    "/eta NAME VALUE": "change a preference's eta in the mix, as in /eta helpful 0.8",
    "/etas": "show every eta",
    "/reset": "take the recipe's eta again",
    "/history": "show the conversation",
    "/clear": "forget the conversation",
    "/help": "show this",
    "/quit": "leave; so does Ctrl-D. Ctrl-C stops what is being said",
}
NAMES = tuple(usage.split()[0] for usage in HELP)


class Quit(Exception):  # noqa: N818
    """The chat is over."""


def run_command(session: ChatSession, line: str) -> str:
    """Do what the line says and return the lines to show.

    Raises ``PvMergeError`` for a command or value that is not valid, and ``Quit``.
    """
    name, *words = line.split()
    if name not in NAMES:
        raise PvMergeError(f"unknown command {name}{did_you_mean(name, NAMES)}")
    if name == "/eta":
        _eta(session, words)
        return etas_text(session.etas)
    if words:
        raise PvMergeError(f"{name} takes nothing after it, got {' '.join(words)!r}")
    if name == "/quit":
        raise Quit
    if name == "/reset":
        session.take_recipe()
    if name == "/clear":
        session.clear()
        return "the conversation is forgotten"
    if name == "/help":
        return "\n".join(f"{usage:<17}{text}" for usage, text in HELP.items())
    if name == "/history":
        return history_text(session)
    return etas_text(session.etas)


def etas_text(etas: Mapping[str, float | None]) -> str:
    """Return every eta in one line."""
    said = (f"{name} {'by layer' if eta is None else f'{eta:g}'}" for name, eta in etas.items())
    return ", ".join(said)


def history_text(session: ChatSession) -> str:
    """Return the conversation, with the eta of each answer of the mix."""
    lines = []
    for turn in session.turns:
        lines.append(f"you: {turn.question}")
        for side in SIDES:
            if side in turn.answers:
                label = side if side == "base" else f"mix ({etas_text(turn.etas)})"
                lines.append(f"{label}: {turn.answers[side]}")
    return "\n".join(lines) or "nothing was said yet"


def _eta(session: ChatSession, words: list[str]) -> None:
    parts = " ".join(words).replace("=", " ").split()
    if len(parts) != 2:
        raise PvMergeError("expected /eta NAME VALUE, such as /eta helpful 0.8")
    name, value = parts
    try:
        number = float(value)
    except ValueError:
        raise PvMergeError(f"eta of {name} must be a number, got {value!r}") from None
    session.change({name: number})
