"""Short replies that are read as values: what is no such value is counted, not fatal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Answer, Failure, Request
from pv_merge.errors import PvMergeError

WORDLESS = 12
"""Replies that cannot be read after which, if none could be, it is no use to go on."""

T = TypeVar("T")


class ReadAsker(Generic[T]):
    """A model whose replies are values of one kind."""

    def __init__(
        self, asker: Asker, read: Callable[[str], T | None], values: str, advice: str
    ) -> None:
        self.asker, self._read = asker, read
        self._values, self._advice = values, advice
        self._found = self._wordless = 0

    def ask(
        self, requests: Sequence[Request], advance: Callable[[], None] = lambda: None
    ) -> list[T | Failure]:
        """Return each reply's value, or why there is none.

        Raises ``PvMergeError`` as ``Asker.ask``, and where reply after reply holds no value.
        """
        return [self._value(answer) for answer in self.asker.ask(requests, advance)]

    def _value(self, answer: Answer) -> T | Failure:
        if isinstance(answer, Failure):
            long = "too long for the judge's context"
            return Failure(long if answer.too_long else "the judge failed", answer.too_long)
        value = self._read(answer.text)
        if value is not None:
            self._found += 1
            return value
        self._wordless += 1
        if not self._found and self._wordless >= WORDLESS:
            raise PvMergeError(
                f"judge: {self.asker.backend.name} gave no {self._values} in {self._wordless} of "
                f"{self._wordless} replies (the last: {answer.text[:60]!r}); {self._advice}"
            )
        return Failure(f"the judge gave no {self._values}")
