"""A model behind an OpenAI-compatible endpoint: vLLM, llama.cpp, Ollama, or a hosted one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any

from pv_merge.asking.exchange import Answer, Failure, Request, Take, counted
from pv_merge.asking.messages import estimated_tokens, without_system
from pv_merge.asking.settings import ModelSettings
from pv_merge.errors import PvMergeError

GARBLED = 3
"""Times that a reply which is no chat completion is asked for."""
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.S)


class Endpoint:
    """Asks with OpenAI's own client, which waits and retries; many requests at a time."""

    def __init__(self, settings: ModelSettings, role: str) -> None:
        try:
            import openai
        except ImportError:
            raise PvMergeError(f"{role}: an endpoint needs openai; pip install openai") from None
        assert settings.url is not None and settings.model is not None
        self._settings, self._role = settings, role
        self.name = f"{settings.model} at {settings.url}"
        self.model, self.temperature = settings.model, settings.temperature
        self._openai: Any = openai

    @property
    def identity(self) -> Any:
        """Endpoint, model and options."""
        settings = self._settings
        return ["endpoint", settings.url, settings.model, settings.options, settings.system_role]

    def answer(self, requests: Sequence[Request], take: Take) -> None:
        """Answer many at a time, in any order."""
        if requests:
            asyncio.run(self._all(requests, take))

    async def _all(self, requests: Sequence[Request], take: Take) -> None:
        settings, gate = self._settings, asyncio.Semaphore(self._settings.concurrency)
        async with self._openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=settings.key or "none",
            timeout=settings.timeout,
            max_retries=settings.retries,
        ) as client:

            async def one(index: int) -> tuple[int, Answer]:
                async with gate:
                    return index, await self._one(client, requests[index])

            tasks = [asyncio.create_task(one(index)) for index in range(len(requests))]
            try:
                for done in asyncio.as_completed(tasks):
                    take(*await done)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, client: Any, request: Request) -> Answer:
        limit = self._settings.context
        wanted = estimated_tokens(request.messages) + request.max_tokens
        if limit is not None and wanted > limit:
            return Failure(f"about {wanted} tokens, and the context has {limit}", too_long=True)
        for attempt in range(GARBLED):
            await asyncio.sleep(0.5 * attempt)
            start = time.perf_counter()
            try:
                completion = await client.chat.completions.create(**self._body(request))
                choice = completion.choices[0]
                text = _spoken(str(choice.message.content or ""))
            except self._openai.OpenAIError as error:
                return self._failed(error)
            except (ValueError, AttributeError, IndexError, TypeError):
                continue  # no JSON, or JSON of another form
            seconds = time.perf_counter() - start
            cut = choice.finish_reason == "length"
            return counted(request, text, completion.usage, cut, seconds)
        return Failure("the reply is not a chat completion")

    def _body(self, request: Request) -> dict[str, Any]:
        """Return the client's arguments; what the user's options say goes into the body as it is."""
        messages = request.messages
        if not self._settings.system_role:
            messages = without_system(messages)
        said = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        } | self._settings.options
        return {
            "model": self._settings.model,
            "messages": [{"role": role, "content": text} for role, text in messages],
            "extra_body": {key: value for key, value in said.items() if value is not None},
        }

    def _failed(self, error: Any) -> Failure:
        """Return why one request failed; raise where every other would fail the same way."""
        openai = self._openai
        reason = self._told(error)
        if isinstance(error, openai.APITimeoutError):
            return Failure(f"no answer within {self._settings.timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            raise PvMergeError(f"{self._role}: {self._settings.url} cannot be reached ({reason})")
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            has = "was not accepted" if self._settings.key else "is not set"
            raise PvMergeError(
                f"{self._role}: {self._settings.url} answers {status}; the key in the environment "
                f"variable {self._settings.key_env} {has}"
            )
        if status in (404, 405):
            raise PvMergeError(
                f"{self._role}: {self._settings.url} answers {status} for {self._settings.model}; is the "
                f"model's name right, and does the address end in /v1? ({reason})"
            )
        code = f"{getattr(error, 'code', None)} {getattr(error, 'type', None)}"
        return Failure(f"HTTP {status} ({reason})" if status else reason, "context" in code)

    def _told(self, error: Any) -> str:
        """Return an error's message in one short line, without the key."""
        cause = error.__cause__ if isinstance(error, self._openai.APIConnectionError) else None
        text = " ".join(str(cause or getattr(error, "message", error)).split())
        if self._settings.key:
            text = text.replace(self._settings.key, "***")
        return text[:160] or type(error).__name__


def _spoken(text: str) -> str:
    """Return a reply without the thoughts that some servers leave before it."""
    return _THOUGHT.sub("", text, count=1).strip() if text.lstrip().startswith("<think>") else text
