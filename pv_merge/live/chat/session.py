"""A conversation that the base and the mix have at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

from pv_merge.live.chat.engine import SIDES, Engine, Side, Stream
from pv_merge.live.chat.stream import ChatSettings


@dataclass
class Turn:
    """One question with both answers."""

    question: str
    etas: dict[str, float | None]
    """The mix's η when it was asked."""
    answers: dict[Side, str] = field(default_factory=dict)
    """A side that was not reached before the turn was stopped has none."""
    stopped: bool = False
    """Whether it was interrupted, so that an answer is cut or missing."""


class ChatSession:
    """Asks both sides each question; each remembers its own answers."""

    def __init__(self, engine: Engine, settings: ChatSettings) -> None:
        self.engine, self.settings = engine, settings
        self.turns: list[Turn] = []
        self._said: dict[str, float] = {}

    @property
    def etas(self) -> dict[str, float | None]:
        """The mix's η; None where the recipe's differs between weights."""
        return {**self.engine.recipe.etas, **self._said}

    @property
    def said(self) -> dict[str, float]:
        """The η that were changed."""
        return dict(self._said)

    def change(self, etas: Mapping[str, float]) -> None:
        """Change η of the mix from the next question on; ``PvMergeError`` if it cannot be so."""
        self.engine.etas_with(etas)
        self._said |= etas

    def take_recipe(self) -> None:
        """Take the recipe's η again."""
        self._said.clear()

    def begin(self, question: str, *, together: bool = True) -> Exchange:
        """Ask both sides: word by word in turns, or where that cannot be, one after the other.

        Raises ``PvMergeError`` where the model cannot take the conversation.
        """
        settings = replace(self.settings, seed=self.settings.seed + len(self.turns) + 1)
        streams: dict[Side, Stream] = {
            side: self.engine.stream(side, self._turns(side, question), self._said, settings)
            for side in SIDES
        }
        turn = Turn(question, self.etas)
        self.turns.append(turn)
        return Exchange(self, turn, streams, together and self.engine.together)

    def ask(
        self, question: str, show: Callable[[Side, str], None], *, together: bool = True
    ) -> Turn:
        """Return the turn; ``show`` is called with each side's answer so far, as it grows.

        A ``KeyboardInterrupt`` stops what is being said: both sides where they speak together,
        else this side, and the other one still answers.
        """
        with self.begin(question, together=together) as exchange:
            more = True
            while more:
                try:
                    side = exchange.step()
                    more = side is not None
                    if side is not None:
                        show(side, exchange.turn.answers[side])
                except KeyboardInterrupt:
                    exchange.stop()
        return exchange.turn

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns.clear()

    def _turns(self, side: Side, question: str) -> list[tuple[str, str]]:
        turns = [("system", self.settings.system)] if self.settings.system else []
        for turn in self.turns:
            if side in turn.answers:
                turns += [("user", turn.question), ("assistant", turn.answers[side])]
        return [*turns, ("user", question)]


class Exchange:
    """One question while both sides answer it. As a context manager it silences them at the end."""

    def __init__(
        self, session: ChatSession, turn: Turn, streams: dict[Side, Stream], together: bool
    ) -> None:
        self.turn, self.together = turn, together
        self._session, self._streams = session, streams
        self._waiting: list[Side] = list(SIDES)

    def step(self) -> Side | None:
        """Let the next side say one more piece; return it, or None when both have ended."""
        while self._waiting:
            side = self._waiting[0]
            self.turn.answers.setdefault(side, "")
            try:
                self.turn.answers[side] += next(self._streams[side])
            except StopIteration:
                self._end(side)
                continue
            if self.together:
                self._waiting.append(self._waiting.pop(0))
            return side
        return None

    def __iter__(self) -> Iterator[Side]:
        while (side := self.step()) is not None:
            yield side

    def stop(self) -> None:
        """Stop what is being said: both sides where they speak together, else the one that does."""
        self.turn.stopped = True
        for side in list(self._waiting) if self.together else self._waiting[:1]:
            self._end(side)

    def _end(self, side: Side) -> None:
        self._streams[side].close()
        self._waiting.remove(side)
        if side in self.turn.answers:
            self.turn.answers[side] = self.turn.answers[side].strip()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._waiting:
            self.turn.stopped = True
            for side in list(self._waiting):
                self._end(side)
        if kind is not None and kind is not GeneratorExit:
            self._session.turns.remove(self.turn)
