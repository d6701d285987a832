"""What happens when something on the page is pressed; nothing here knows how the page looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from pv_merge.errors import PvMergeError
from pv_merge.live.chat.engine import SIDES, Engine, Side
from pv_merge.live.chat.session import ChatSession
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.recipe.grid import checked_axes, parse_axes

Messages = list[dict[str, str]]
"""A conversation as the page shows it."""


def conversation(session: ChatSession, side: Side) -> Messages:
    """Return one side of the conversation; of the mix with the η of each answer."""
    said: Messages = []
    for turn in session.turns:
        said.append({"role": "user", "content": turn.question})
        if turn.answers.get(side):
            said.append({"role": "assistant", "content": turn.answers[side]})
    return said


def answer(
    session: ChatSession, question: str, etas: Mapping[str, float], together: bool
) -> Iterator[dict[Side, Messages]]:
    """Ask both sides and yield both conversations as they grow. Closing it ends the answers."""
    if not question.strip():
        raise PvMergeError("there is no question yet: write one, or take one of the prompts")
    session.change(etas)
    with session.begin(question.strip(), together=together) as exchange:
        length = -1
        for _ in exchange:
            if (said := sum(map(len, exchange.turn.answers.values()))) > length:
                length = said  # most tokens end no word, and show nothing new
                yield {side: conversation(session, side) for side in SIDES}
    yield {side: conversation(session, side) for side in SIDES}


def table(
    engine: Engine,
    question: str,
    name: str,
    values: str,
    etas: Mapping[str, float],
    settings: ChatSettings,
) -> Iterator[list[list[str]]]:
    """Yield the rows (η, answer) of one question at several η of ``name``, as they grow.

    The other preferences keep theirs. Raises ``PvMergeError`` for values that are no list of numbers.
    """
    if not question.strip():
        raise PvMergeError("there is no question yet: write one, or take one of the prompts")
    axis: Sequence[float] = checked_axes(
        parse_axes([f"{name}={values}"]), engine.recipe.preferences
    )[name]
    points = [{**etas, name: value} for value in axis]
    for point in points:
        engine.etas_with(point)  # all of them are allowed before the first is asked
    rows = [[f"{value:+g}" if value else "0", ""] for value in axis]
    for row, point in zip(rows, points, strict=True):
        turns = [("system", settings.system)] if settings.system else []
        stream = engine.stream("mix", [*turns, ("user", question.strip())], point, settings)
        with closing(stream):
            while (piece := next(stream, None)) is not None:
                row[1] += piece
                if piece:
                    yield [list(row) for row in rows]
        row[1] = row[1].strip()
    yield rows
