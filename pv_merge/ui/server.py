"""Answers from a server that speaks OpenAI's protocol and takes mixes as names of models."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from pv_merge.artifacts.manifest import said_in
from pv_merge.artifacts.protection import negative_problem
from pv_merge.data.encoding import Turns, as_messages
from pv_merge.errors import PvMergeError, Topic, raise_all
from pv_merge.integrations.mixes.name import canonical
from pv_merge.live.chat.engine import Side, Stream
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.recipe.recipe import Recipe

KEY = "VLLM_API_KEY"
"""The environment variable with the server's key, as vLLM itself calls it."""


class ServerEngine:
    """Asks a server for its base, or for the mix ``polite=0.5``. The recipe's files stay unread."""

    together = True
    """Each side is a request of its own."""

    def __init__(self, url: str, recipe: Recipe) -> None:
        import openai

        by_layer = [name for name, eta in recipe.etas.items() if eta is None]
        if by_layer:
            raise PvMergeError(
                f"{recipe.path}: eta of {by_layer[0]} differs by layer, and a mix's name holds one number"
            )
        self.recipe = recipe
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        key = os.environ.get(KEY) or "none"  # the client insists on one
        self._client = openai.OpenAI(base_url=self.url, api_key=key, max_retries=0)
        with _told(self.url):
            served = [model.id for model in self._client.models.list()]
        if not served:
            raise PvMergeError(f"{self.url}: serves no model")
        self.base = served[0]

    def etas_with(self, etas: Mapping[str, float]) -> dict[str, float | None]:
        """Return every η of the mix; ``PvMergeError`` for a negative one of a protected preference."""
        problems = [self._problem(name) for name, value in etas.items() if value < 0]
        raise_all([problem for problem in problems if problem], Topic.PROTECTED)
        return {**self.recipe.etas, **etas}

    @property
    def locked(self) -> frozenset[str]:
        """The preferences whose η may not be negative."""
        return frozenset(name for name in self.recipe.preferences if self._problem(name))

    def _problem(self, name: str) -> str | None:
        """Return the line for a negative η: by the inputs' manifests where they lie here, else by name."""
        if self.recipe.allow_protected_negative:
            return None
        models = [item.model for item in self.recipe.inputs if item.preference == name]
        said = [said_in(model, name) for model in models if Path(model).is_dir()]
        return negative_problem(name, said)

    def model(self, side: Side, etas: Mapping[str, float]) -> str:
        """Return the name of the model that is asked."""
        said = {name: Decimal(str(eta)) for name, eta in self.etas_with(etas).items() if eta}
        return self.base if side == "base" or not said else canonical(tuple(said.items()))

    def stream(
        self, side: Side, turns: Turns, etas: Mapping[str, float], settings: ChatSettings
    ) -> Stream:
        """Send the request; its answer is read when it is asked for."""
        return self._pieces(self.model(side, etas), turns, settings)

    def _pieces(
        self, model: str, turns: Turns, settings: ChatSettings
    ) -> Generator[str, None, None]:
        with _told(f"{self.url}, {model}"):
            messages: Any = as_messages(turns)
            answer = self._client.chat.completions.create(
                model=model,
                messages=messages,
                max_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                seed=settings.seed,
                stream=True,
            )
            try:
                for event in answer:
                    if event.choices:
                        yield event.choices[0].delta.content or ""
            finally:
                answer.close()  # the server stops when nobody listens


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn the client's errors into one line."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        said = str(body.get("message") or error.message).splitlines()[0][:300]
        raise PvMergeError(f"{where}: the server answered {error.status_code} ({said})") from None
    except openai.APIConnectionError:
        raise PvMergeError(
            f"{where}: no server answers; is it up, and is the address right?"
        ) from None
    except openai.OpenAIError as error:
        raise PvMergeError(f"{where}: {str(error).splitlines()[0]}") from None
