"""Asking a model: from the cache where it has the reply, else from the model, with the costs counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pv_merge.asking.exchange import Answer, Backend, Cost, Failure, Request
from pv_merge.asking.replies import ReplyCache
from pv_merge.errors import PvMergeError

PATIENCE = 12
"""Requests that may fail one after the other, with none answered, before it is no use to go on."""


class Asker:
    """One model in one role."""

    def __init__(self, backend: Backend, cache: ReplyCache) -> None:
        self.backend, self._cache = backend, cache
        self.cost = Cost()
        self._failures = 0

    def ask(
        self, requests: Sequence[Request], advance: Callable[[], None] = lambda: None
    ) -> list[Answer]:
        """Return the answer to each request; every reply is in the cache as soon as it is there.

        Raises ``PvMergeError`` if the model cannot be reached, or if request after request fails.
        """
        keys = [request.key(self.backend.identity) for request in requests]
        answers: dict[int, Answer] = {}
        waiting: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            known = self._cache.get(key)
            if known is None:
                waiting.setdefault(key, []).append(index)
            else:
                answers[index] = known
                self.cost.add(known, cached=True)
                advance()
        places = list(waiting.values())

        def take(place: int, answer: Answer) -> None:
            self._take(keys[places[place][0]], answer)
            answers.update(dict.fromkeys(places[place], answer))
            advance()

        start = time.perf_counter()
        try:
            self.backend.answer([requests[place[0]] for place in places], take)
        finally:
            self.cost.seconds += time.perf_counter() - start
        return [answers[index] for index in range(len(requests))]

    def _take(self, key: str, answer: Answer) -> None:
        if not isinstance(answer, Failure):
            self._failures = 0
            self._cache.put(key, answer)
            self.cost.add(answer, cached=False)
            return
        self.cost.failed += 1
        if not answer.too_long:
            self._failures += 1
        if self._failures >= PATIENCE:
            raise PvMergeError(
                f"{self.backend.name}: {self._failures} requests failed one after the other, the last "
                f"with: {answer.reason}"
            )
