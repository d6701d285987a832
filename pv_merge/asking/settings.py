"""Which model is asked, and how."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pv_merge.data.settings import StrictSettings


class ModelSettings(StrictSettings):
    """A model that answers: behind an endpoint, or in this process."""

    url: str | None = None
    """An OpenAI-compatible endpoint, such as ``http://localhost:8000/v1``; without it the model is
    loaded in this process."""
    model: str | None = None
    """The endpoint's name of the model; without ``url`` a folder or Hub name, or ``base``: the model
    that is to be trained."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    concurrency: Annotated[int, Field(gt=0, le=256)] = 8
    """Requests at a time to an endpoint; answers at a time of a model in this process."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for one answer of an endpoint."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Times that a request is sent again after 408, 409, 429, 5xx, a timeout or a lost connection,
    with growing pauses."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; 0.8 for a writer, 0 for a judge."""
    context: Annotated[int, Field(gt=0)] | None = None
    """Tokens that the model can read and write together, where the endpoint's is known."""
    system_role: bool = True
    """Whether the model takes a system message; without it the instruction opens the user's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Dtype of a model in this process; auto is the checkpoint's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More fields of the request's body, such as ``top_p``; null leaves one of ours out."""
    license: str | None = None
    """Licence of what the model writes, for the card."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http:// or https://, such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("holds a name or a key; keys come from the environment (key_env)")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError("expected the name of an environment variable, never the key itself")
        return value

    @property
    def key(self) -> str:
        """The endpoint's key; empty where the environment has none."""
        return os.environ.get(self.key_env, "")
