"""Prompt and completion as token ids, cut where TRL's DPOTrainer cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv_merge.live.prompt import _chat, _plain, encode_prompt, plain_prompt

if TYPE_CHECKING:
    from pv_merge.data.pairs import Pair


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
