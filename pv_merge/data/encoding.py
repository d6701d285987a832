"""Prompts and answers as token ids, the same for training, measuring and talking.

With a chat template the template writes the turns; without one the turns are plain text with a
blank line after each. Where a completion begins, and what ends it, is as in TRL 1.16
(``DPOTrainer._prepare_dataset``), so that a figure and a loss are about the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pv_merge.data.pairs import Pair

Turns = Sequence[tuple[str, str]]
"""(role, text) of each message."""


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


def plain_prompt(turns: Turns) -> str:
    """Return a prompt for a model without a chat template."""
    return "\n\n".join(text for _, text in turns) + "\n\n"


def as_messages(turns: Turns) -> list[dict[str, str]]:
    """Return turns as the messages that chat templates and TRL read."""
    return [{"role": role, "content": text} for role, text in turns]


def encode_prompt(tokenizer: Any, turns: Turns) -> list[int]:
    """Return the tokens after which the model's answer comes."""
    if tokenizer.chat_template is None:
        return _plain(tokenizer, plain_prompt(turns))
    return _chat(tokenizer, turns, add_generation_prompt=True)


def encode_pair(
    tokenizer: Any, pair: Pair, max_length: int | None = None
) -> tuple[Encoded, Encoded]:
    """Return the chosen and the rejected answer, each with the prompt that they share.

    The completion starts where the prompt and prompt + answer part, and holds the end of turn.
    A sequence is cut after ``max_length`` tokens.
    """
    prompt = encode_prompt(tokenizer, pair.prompt)
    chosen, rejected = (
        _whole(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)
    )
    start = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
    return (
        Encoded(tuple(chosen[:max_length]), start),
        Encoded(tuple(rejected[:max_length]), start),
    )


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their start."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _whole(tokenizer: Any, turns: Turns, answer: str) -> list[int]:
    """Return prompt and answer; without a template the tokenizer's end of text is added."""
    if tokenizer.chat_template is not None:
        return _chat(tokenizer, [*turns, ("assistant", answer)])
    end = tokenizer.eos_token or ""
    return _plain(tokenizer, plain_prompt(turns) + answer + ("" if answer.endswith(end) else end))


def _chat(tokenizer: Any, turns: Turns, **options: Any) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        as_messages(turns), tokenize=True, return_dict=True, **options
    )
    return list(encoded["input_ids"])


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text=text)["input_ids"])
