"""Pairs as tokens: by TRL's own code, once for both polarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from pv_merge.data.pairs import Pair
from pv_merge.errors import PvMergeError

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


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
    """Return pairs as the rows that TRL reads: messages, or plain text without a chat template."""
    if not chat:
        return Dataset.from_list(
            [
                {
                    "prompt": "\n\n".join(text for _, text in pair.prompt) + "\n\n",
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                }
                for pair in pairs
            ]
        )
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": role, "content": text} for role, text in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def tokenize(
    pairs: Sequence[Pair], tokenizer: Any, arguments: DPOConfig, source: str, name: str = "train"
) -> Tokenized:
    """Return ``pairs`` as TRL tokenizes them, with the chat template where there is one.

    Raises ``PvMergeError``, naming ``source``, if no row is left.
    """
    rows = to_rows(pairs, tokenizer.chat_template is not None)
    # The method uses nothing of the trainer but its tokenizer, and so needs no model.
    stand_in: Any = SimpleNamespace(_tokenizer=tokenizer)
    rows = DPOTrainer._prepare_dataset(stand_in, rows, tokenizer, arguments, name)
    if not len(rows):
        raise PvMergeError(
            f"{source}: in each of {len(pairs)} rows the prompt alone fills max_length: "
            f"{arguments.max_length} tokens; raise it"
        )
    lengths = [
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in rows.select_columns(list(COLUMNS))
    ]
    limit = arguments.max_length
    truncated = sum(limit is not None and length > limit for length in lengths)
    rows = rows.select_columns(list(COLUMNS)).add_column("length", lengths)
    return Tokenized(rows, len(pairs) - len(rows), truncated)
