"""A conversation that the base and the mix have at once, with one model in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pv_merge.data.encoding import encode_prompt
from pv_merge.errors import PvMergeError
from pv_merge.live.generation import generation_config
from pv_merge.live.subject import Subject
from pv_merge.live.switch import LiveMix

Side = Literal["base", "mix"]
SIDES: tuple[Side, Side] = ("base", "mix")


@dataclass(frozen=True)
class ChatSettings:
    """How answers are made."""

    max_new_tokens: int = 200
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    seed: int = 0
    """Of sampling; the same for both sides, so that only the weights differ."""
    system: str | None = None
    """System prompt."""


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

    def __init__(self, subject: Subject, mix: LiveMix, settings: ChatSettings) -> None:
        self.subject, self.mix, self.settings = subject, mix, settings
        self.turns: list[Turn] = []
        self._said: dict[str, float] = {}

    @property
    def etas(self) -> dict[str, float | None]:
        """The mix's η; None where the recipe's differs between weights."""
        return {**self.mix.recipe.etas, **self._said}

    def change(self, etas: Mapping[str, float]) -> None:
        """Change η of the mix from the next question on; ``PvMergeError`` as ``LiveMix.set``."""
        self.mix.etas_with(etas)
        self._said |= etas

    def take_recipe(self) -> None:
        """Take the recipe's η again."""
        self._said.clear()

    def ask(self, question: str, show: Callable[[Side, str], None]) -> Turn:
        """Return the turn; ``show`` is called with each side's answer so far, as it grows.

        A ``KeyboardInterrupt`` stops it: what was said until then is kept.
        """
        turn = Turn(question, self.etas)
        prompts = {side: self._prompt(side, question) for side in SIDES}
        self.turns.append(turn)
        try:
            for side in SIDES:
                if side == "base":
                    self.mix.reset()
                else:
                    self.mix.set(self._said)
                turn.answers[side] = ""
                for piece in self._stream(prompts[side]):
                    turn.answers[side] += piece
                    show(side, turn.answers[side])
                turn.answers[side] = turn.answers[side].strip()
        except KeyboardInterrupt:
            turn.stopped = True
        except BaseException:
            self.turns.remove(turn)
            raise
        return turn

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns.clear()

    def _prompt(self, side: Side, question: str) -> list[int]:
        messages = [("system", self.settings.system)] if self.settings.system else []
        for turn in self.turns:
            if side in turn.answers:
                messages += [("user", turn.question), ("assistant", turn.answers[side])]
        try:
            tokens = encode_prompt(self.subject.tokenizer, [*messages, ("user", question)])
        except Exception as error:  # a chat template may raise anything, such as "no system role"
            raise PvMergeError(f"the chat template refuses this: {error}") from None
        limit = self.subject.max_length
        if limit is not None and len(tokens) + self.settings.max_new_tokens > limit:
            raise PvMergeError(
                f"the conversation has {len(tokens)} tokens and an answer up to "
                f"{self.settings.max_new_tokens}, the model takes {limit}; /clear starts anew"
            )
        return tokens

    def _stream(self, prompt: list[int]) -> Iterator[str]:
        """Yield pieces of an answer while another thread makes it, and stop that thread at the end."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

        stop = threading.Event()

        class Stopped(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
                return torch.full((input_ids.shape[0],), stop.is_set(), device=input_ids.device)

        model = self.subject.model
        streamer = TextIteratorStreamer(
            self.subject.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        config = generation_config(
            self.subject, self.settings.max_new_tokens, self.settings.temperature
        )
        ids = torch.tensor([prompt], device=model.device)
        failures: list[Exception] = []

        def generate() -> None:
            try:
                with torch.inference_mode():
                    model.generate(
                        input_ids=ids,
                        attention_mask=torch.ones_like(ids),
                        generation_config=config,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([Stopped()]),
                    )
            except Exception as error:
                failures.append(error)
                streamer.end()

        torch.manual_seed(self.settings.seed + len(self.turns))
        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from streamer
        finally:
            stop.set()
            thread.join()
        if failures:
            raise PvMergeError(f"the model failed: {failures[0]}")
