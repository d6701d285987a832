"""Prompt and completion as token ids, cut where TRL's DPOTrainer cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.preference_data import Pair


@dataclass(frozen=True)
class Encoded:
    """One prompt with one answer."""

    tokens: tuple[int, ...]
    start: int
    """Where the completion begins in ``tokens``."""

    @property
    def length(self) -> int:
        """Number of completion tokens that have a prediction."""
        return len(self.tokens) - max(self.start, 1)


def encode_pair(
    tokenizer: Any, pair: Pair, max_length: int | None = None
) -> tuple[Encoded, Encoded]:
    """Return the chosen and the rejected answer, each with the prompt that they share.

    The completion starts where the prompt and prompt + answer part, and holds the end of turn, as
    in TRL 1.16 (``DPOTrainer._prepare_dataset``). A sequence is cut after ``max_length`` tokens.
    """
    prompt, chosen, rejected = _ids(tokenizer, pair)
    start = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
    return (
        Encoded(tuple(chosen[:max_length]), start),
        Encoded(tuple(rejected[:max_length]), start),
    )


def encode_prompt(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:
    """Return the tokens after which the model's answer comes."""
    if tokenizer.chat_template is None:
        return _plain(tokenizer, plain_prompt(messages))
    return _chat(tokenizer, messages, add_generation_prompt=True)


def plain_prompt(messages: Sequence[tuple[str, str]]) -> str:
    """Return a prompt for a model without a chat template, as the trainer writes it."""
    return "\n\n".join(text for _, text in messages) + "\n\n"


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their start."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _ids(tokenizer: Any, pair: Pair) -> tuple[list[int], list[int], list[int]]:
    if tokenizer.chat_template is None:
        prompt = plain_prompt(pair.prompt)
        end = tokenizer.eos_token or ""
        answers = [
            text if text.endswith(end) else text + end for text in (pair.chosen, pair.rejected)
        ]
        chosen, rejected = (_plain(tokenizer, prompt + answer) for answer in answers)
        return _plain(tokenizer, prompt), chosen, rejected
    chosen, rejected = (
        _chat(tokenizer, [*pair.prompt, ("assistant", text)])
        for text in (pair.chosen, pair.rejected)
    )
    return encode_prompt(tokenizer, pair.prompt), chosen, rejected


def _chat(tokenizer: Any, messages: Sequence[tuple[str, str]], **options: Any) -> list[int]:
    turns = [{"role": role, "content": text} for role, text in messages]
    return list(
        tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, **options)[
            "input_ids"
        ]
    )


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text=text)["input_ids"])
