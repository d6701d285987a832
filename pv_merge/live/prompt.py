"""A prompt as the tokens after which the answer comes, with a chat template or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def encode_prompt(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:
    """Return the tokens after which the model's answer comes."""
    if tokenizer.chat_template is None:
        return _plain(tokenizer, plain_prompt(messages))
    return _chat(tokenizer, messages, add_generation_prompt=True)


def plain_prompt(messages: Sequence[tuple[str, str]]) -> str:
    """Return a prompt for a model without a chat template, as the trainer writes it."""
    return "\n\n".join(text for _, text in messages) + "\n\n"


def _chat(tokenizer: Any, messages: Sequence[tuple[str, str]], **options: Any) -> list[int]:
    turns = [{"role": role, "content": text} for role, text in messages]
    return list(
        tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, **options)[
            "input_ids"
        ]
    )


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text=text)["input_ids"])
