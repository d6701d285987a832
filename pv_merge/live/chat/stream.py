"""One answer of a model in memory, made piece by piece."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pv_merge.errors import PvMergeError
from pv_merge.live.generation import generation_config
from pv_merge.live.subject import Subject


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


class _Stopped(Exception):  # noqa: N818
    """Ends a thread that generates."""


class GeneratedStream:
    """An answer of a model in memory: ``generate`` in a thread that stands still but in ``__next__``.

    ``prepare`` is called before each piece, so that several streams can share one model whose
    weights change between two pieces, when none of them is at work.
    """

    def __init__(
        self,
        subject: Subject,
        tokens: list[int],
        settings: ChatSettings,
        prepare: Callable[[], None],
    ) -> None:
        import torch

        self._subject, self._prepare = subject, prepare
        self._go = threading.Semaphore(0)
        self._pieces: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
        self._stopped = self._over = False
        self._random = _Random(settings.seed)
        ids = torch.tensor([tokens], device=subject.model.device)
        self._thread = threading.Thread(target=self._generate, args=(ids, settings), daemon=True)

    def __next__(self) -> str:
        """Return the next piece; ``PvMergeError`` if the model fails."""
        if self._over:
            raise StopIteration
        self._prepare()
        with self._random:
            if self._thread.ident is None:
                self._thread.start()
            self._go.release()
            piece = self._pieces.get()
        if isinstance(piece, str):
            return piece
        self.close()
        if isinstance(piece, Exception):
            raise PvMergeError(f"the model failed: {piece}") from None
        raise StopIteration

    def close(self) -> None:
        """End the thread, after the token that it is at."""
        self._stopped = self._over = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _wait(self) -> None:
        self._go.acquire()
        self._refuse()

    def _refuse(self) -> None:
        if self._stopped:
            raise _Stopped

    def _generate(self, ids: Any, settings: ChatSettings) -> None:
        import torch

        subject = self._subject
        try:
            self._wait()
            with torch.inference_mode():
                subject.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=generation_config(
                        subject, settings.max_new_tokens, settings.temperature
                    ),
                    streamer=_streamer(subject.tokenizer, self._say, self._refuse),
                )
            self._pieces.put(None)
        except _Stopped:
            self._pieces.put(None)
        except Exception as error:
            self._pieces.put(error)

    def _say(self, text: str) -> None:
        self._pieces.put(text)  # empty within a word, and still a step
        self._wait()  # also after the last piece: the end is asked for by itself


def _streamer(tokenizer: Any, say: Any, refuse: Any) -> Any:
    """Return a streamer of transformers that hands on text at every token, whole words only."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def put(self, value: Any) -> None:
            refuse()
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            say(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


class _Random:
    """A stream's own state of torch's generators, theirs only while it is at work."""

    def __init__(self, seed: int) -> None:
        self._seed: int | None = seed
        self._own: Any = None

    def __enter__(self) -> None:
        import torch

        self._outer = self._states()
        if self._seed is not None:
            torch.manual_seed(self._seed)
            self._seed = None
        else:
            self._take(self._own)

    def __exit__(self, *error: object) -> None:
        self._own = self._states()
        self._take(self._outer)

    def _states(self) -> Any:
        import torch

        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return torch.get_rng_state(), cuda

    def _take(self, states: Any) -> None:
        import torch

        torch.set_rng_state(states[0])
        if states[1]:
            torch.cuda.set_rng_state_all(states[1])
