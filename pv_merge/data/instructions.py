"""Instruction rows for supervised fine-tuning: a prompt, and the answer that is learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasets import Dataset

from pv_merge.data.encoding import as_messages, plain_prompt
from pv_merge.data.rows import Row, RowError, instruction_prompt, messages, read_rows, text
from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError, did_you_mean


@dataclass(frozen=True)
class Example:
    """One prompt and its answer."""

    prompt: tuple[tuple[str, str], ...]
    """(role, text), the last one the user's."""
    answer: str


@dataclass(frozen=True)
class Examples:
    """The usable rows of a data set, and what was left out."""

    examples: tuple[Example, ...]
    empty: int
    """Rows dropped because the answer is empty."""
    long: int
    """Rows dropped because they exceed ``max_chars``."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the examples, in order."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps([example.prompt, example.answer]).encode())
            digest.update(b"\n")
        return digest.hexdigest()


def instruction(row: Row) -> Example:
    """instruction, input (may be absent or empty), output, as in the Alpaca form."""
    return Example((("user", instruction_prompt(row)),), text(row, "output"))


def dialogue(row: Row) -> Example:
    """messages: a dialogue whose last message, the assistant's, is what is learned."""
    turns = messages(row, "messages")
    if len(turns) < 2 or turns[-1][0] != "assistant":
        raise RowError("messages must be a dialogue that ends with the assistant's answer")
    return Example(turns[:-1], turns[-1][1])


FORMATS: dict[str, Callable[[Row], Example]] = {"instruction": instruction, "messages": dialogue}


def load_examples(settings: DatasetSettings) -> Examples:
    """Return the examples of a data set.

    Raises ``PvMergeError`` if the file or format is unknown, if a row does not have the columns
    of its format, or if no usable row is left.
    """
    if settings.format not in FORMATS:
        hint = did_you_mean(settings.format, FORMATS)
        raise PvMergeError(f"{settings.path}: unknown format {settings.format!r}{hint}")
    kept: list[Example] = []
    empty = long = count = 0
    for count, row in enumerate(read_rows(settings), start=1):
        try:
            example = FORMATS[settings.format](row)
        except RowError as error:
            columns = ", ".join(sorted(str(key) for key in row))
            raise PvMergeError(
                f"{settings.path}: row {count} is not of the format {settings.format}: {error} "
                f"(its columns: {columns}; formats: {', '.join(FORMATS)})"
            ) from None
        characters = sum(len(part) for _, part in example.prompt) + len(example.answer)
        if not example.answer.strip():
            empty += 1
        elif settings.max_chars is not None and characters > settings.max_chars:
            long += 1
        else:
            kept.append(example)
            if settings.max_rows is not None and len(kept) >= settings.max_rows:
                break
    if not kept:
        raise PvMergeError(
            f"{settings.path}: no usable row of {count}: in {empty} the answer is empty, {long} are "
            "over max_chars"
        )
    return Examples(tuple(kept), empty, long)


def to_rows(examples: Sequence[Example], chat: bool) -> Dataset:
    """Return examples as the rows that TRL reads: messages, or plain text without a template."""
    if not chat:
        return Dataset.from_list(
            [{"prompt": plain_prompt(e.prompt), "completion": e.answer} for e in examples]
        )
    return Dataset.from_list(
        [
            {
                "prompt": as_messages(example.prompt),
                "completion": as_messages([("assistant", example.answer)]),
            }
            for example in examples
        ]
    )
