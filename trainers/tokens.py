"""Pairs as the rows of tokens that TRL's trainer takes, once for both polarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl import DPOConfig

from pv_merge.data.encoding import Encoded, as_messages, encode_pair, plain_prompt
from pv_merge.data.pairs import Pair
from pv_merge.errors import PvMergeError


@dataclass(frozen=True)
class Tokenized:
    """Tokenized pairs, and what their length did to them."""

    rows: Dataset
    """``prompt_ids``, ``chosen_ids``, ``rejected_ids``, and ``length``: tokens of the longer side."""
    filled: int
    """Rows dropped because the prompt alone fills ``max_length``."""
    truncated: int
    """Rows kept of which an answer is cut at ``max_length``."""

    def swapped(self) -> Dataset:
        """Return the rows with their labels swapped."""
        names = {"chosen_ids": "rejected_ids", "rejected_ids": "chosen_ids"}
        return self.rows.rename_columns(names)


def to_rows(pairs: Sequence[Pair], chat: bool) -> Dataset:
    """Return pairs as TRL reads them from a file, to compare with what it makes of them itself."""
    if not chat:
        return Dataset.from_list(
            [
                {
                    "prompt": plain_prompt(pair.prompt),
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                }
                for pair in pairs
            ]
        )
    return Dataset.from_list(
        [
            {
                "prompt": as_messages(pair.prompt),
                "chosen": as_messages([("assistant", pair.chosen)]),
                "rejected": as_messages([("assistant", pair.rejected)]),
            }
            for pair in pairs
        ]
    )


def tokenize(pairs: Sequence[Pair], tokenizer: Any, arguments: DPOConfig, source: str) -> Tokenized:
    """Return ``pairs`` as tokens, with the chat template where there is one.

    As in TRL a row goes whose prompt alone fills ``max_length``, unless the end of a sequence is
    what is kept. Raises ``PvMergeError``, naming ``source``, if no row is left.
    """
    limit = arguments.max_length
    bound = limit if arguments.truncation_mode == "keep_start" else None
    encoded = [encode_pair(tokenizer, pair) for pair in pairs]
    kept = [sides for sides in encoded if bound is None or sides[0].start < bound]
    if not kept:
        raise PvMergeError(
            f"{source}: in each of {len(pairs)} rows the prompt alone fills max_length: "
            f"{limit} tokens; raise it"
        )
    rows = Dataset.from_list([_row(*sides) for sides in kept])
    truncated = sum(limit is not None and length > limit for length in rows["length"])
    return Tokenized(rows, len(pairs) - len(kept), truncated)


def _row(chosen: Encoded, rejected: Encoded) -> dict[str, Any]:
    return {
        "prompt_ids": list(chosen.tokens[: chosen.start]),
        "chosen_ids": list(chosen.tokens[chosen.start :]),
        "rejected_ids": list(rejected.tokens[rejected.start :]),
        "length": max(len(chosen.tokens), len(rejected.tokens)),
    }
