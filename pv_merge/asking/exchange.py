"""One request to a model, what comes back, and what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pv_merge.asking.messages import Messages, estimated_tokens


@dataclass(frozen=True)
class Request:
    """Messages to be answered."""

    messages: Messages
    max_tokens: int
    temperature: float
    seed: int

    def key(self, identity: Any) -> str:
        """Return the SHA-256 of the request and of whom it goes to."""
        content = [identity, self.messages, self.max_tokens, self.temperature, self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What a model said."""

    text: str
    cut: bool = False
    """Whether it was stopped by ``max_tokens``."""
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: bool = False
    """Whether the tokens were counted by their characters, since the endpoint did not say."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """Why a request has no reply; the others go on."""

    reason: str
    too_long: bool = False
    """Whether its messages do not fit the model's context."""


Answer = Reply | Failure
Take = Callable[[int, Answer], None]
"""Told each request's index with its answer, in any order, as they come."""


class Backend(Protocol):
    """A model that answers requests."""

    name: str
    """As messages show it."""
    model: str
    """As it is recorded and published: without the address, or the folders above it."""
    temperature: float | None
    """Sampling temperature that the settings ask for."""

    @property
    def identity(self) -> Any:
        """What its replies depend on besides the request; holds no key."""

    def answer(self, requests: Sequence[Request], take: Take) -> None:
        """Answer every request.

        Raises ``PvMergeError`` where no request can succeed: no such endpoint, model or key.
        """


@dataclass
class Cost:
    """What was asked of one model."""

    requests: int = 0
    """Requests that were sent and answered."""
    cached: int = 0
    """Requests that the cache answered."""
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: bool = False
    seconds: float = 0.0
    """Wall time spent waiting."""

    def add(self, reply: Reply, cached: bool) -> None:
        """Count a reply. A cached one counts with the tokens that it cost once."""
        if cached:
            self.cached += 1
        else:
            self.requests += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.estimated |= reply.estimated

    def record(self) -> dict[str, Any]:
        """Return the figures for a manifest."""
        return {
            "requests": self.requests,
            "cached": self.cached,
            "failed": self.failed,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_estimated": self.estimated,
            "seconds": round(self.seconds, 1),
        }


def counted(request: Request, text: str, usage: Any, cut: bool, seconds: float) -> Reply:
    """Return a reply with the tokens that ``usage`` says, or as estimated from the characters."""
    tokens = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    known = all(isinstance(value, int) for value in tokens)
    if not known:
        tokens = [estimated_tokens(request.messages), estimated_tokens([("assistant", text)])]
    return Reply(text, cut, int(tokens[0] or 0), int(tokens[1] or 0), not known, round(seconds, 3))
