"""Where the answers of a chat come from: a model in memory, or whatever has this protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from pv_merge.data.encoding import Turns, encode_prompt
from pv_merge.errors import PvMergeError
from pv_merge.live.chat.stream import ChatSettings, GeneratedStream
from pv_merge.live.memory import refuse_too_large
from pv_merge.live.subject import Subject, load_subject
from pv_merge.live.switch import LiveMix
from pv_merge.recipe.checks.roles import protected_problems
from pv_merge.recipe.opening import open_recipe
from pv_merge.recipe.recipe import Recipe

Side = Literal["base", "mix"]
SIDES: tuple[Side, Side] = ("base", "mix")


class Stream(Protocol):
    """The pieces of one answer. It speaks only while it is asked, and ``close`` silences it."""

    def __next__(self) -> str:
        """Return the next piece; ``StopIteration`` at the end, ``PvMergeError`` if it fails."""

    def close(self) -> None:
        """Make no more of the answer."""


class Engine(Protocol):
    """Answers as a recipe's base or as its mix."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""

    @property
    def together(self) -> bool:
        """Whether both sides may speak at once, in turns of a word."""

    @property
    def locked(self) -> frozenset[str]:
        """The preferences whose η may not be negative."""

    def etas_with(self, etas: Mapping[str, float]) -> dict[str, float | None]:
        """Return every η of the mix; ``PvMergeError`` for one that it cannot have."""

    def stream(
        self, side: Side, turns: Turns, etas: Mapping[str, float], settings: ChatSettings
    ) -> Stream:
        """Begin an answer to ``turns``, which end with a question."""


class LiveEngine:
    """One model in memory. Weights change only between two pieces, when no stream is at work."""

    def __init__(self, subject: Subject, mix: LiveMix) -> None:
        self.subject, self.mix = subject, mix

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.mix.recipe

    @property
    def together(self) -> bool:
        """Whether η changes by scales alone, so that it may between two words."""
        return self.mix.scales_only

    @property
    def locked(self) -> frozenset[str]:
        """The preferences whose η may not be negative."""
        inputs = self.mix.opened.inputs
        names = self.recipe.preferences
        return frozenset(n for n in names if protected_problems(self.recipe, inputs, [n]))

    def etas_with(self, etas: Mapping[str, float]) -> dict[str, float | None]:
        """Return every η of the mix; ``PvMergeError`` as ``LiveMix``."""
        return self.mix.etas_with(etas)

    def stream(
        self, side: Side, turns: Turns, etas: Mapping[str, float], settings: ChatSettings
    ) -> Stream:
        """Begin an answer; ``PvMergeError`` where the model cannot take the turns."""
        tokens = self._encoded(turns, settings.max_new_tokens)
        etas = dict(etas)
        return GeneratedStream(
            self.subject, tokens, settings, lambda: self.be(etas if side == "mix" else None)
        )

    def be(self, etas: Mapping[str, float] | None) -> None:
        """Make the model the base (None) or the mix."""
        if etas is None:
            self.mix.reset()
        else:
            self.mix.set(etas)

    def _encoded(self, turns: Turns, room: int) -> list[int]:
        try:
            tokens = encode_prompt(self.subject.tokenizer, turns)
        except Exception as error:  # a chat template may raise anything, such as "no system role"
            raise PvMergeError(f"the chat template refuses this: {error}") from None
        limit = self.subject.max_length
        if limit is not None and len(tokens) + room > limit:
            raise PvMergeError(
                f"the conversation has {len(tokens)} tokens and an answer up to {room}, "
                f"the model takes {limit}; /clear starts anew"
            )
        return tokens


@contextmanager
def live_engine(path: str | Path, dtype: str = "float32") -> Iterator[LiveEngine]:
    """Yield a recipe's base in memory, with its mix; at the end the model is the base again.

    Raises ``PvMergeError`` for what the check finds, and before anything is loaded where the model
    is too large for the memory that is free.
    """
    opened = open_recipe(path)
    refuse_too_large(opened.base, dtype)
    subject = load_subject(opened.live_base, dtype=dtype)
    with LiveMix(opened, subject.model) as mix:
        yield LiveEngine(subject, mix)
