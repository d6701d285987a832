"""Preference pairs: formats, checks, and the swap of labels that makes the negative policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError, did_you_mean
from trainers.settings import DatasetSettings

Message = dict[str, str]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """One comparison: a prompt as messages, and two answers of the assistant."""

    prompt: tuple[tuple[str, str], ...]
    """(role, text), the last one the user's."""
    chosen: str
    rejected: str

    def swapped(self) -> Pair:
        """Return the pair with its labels swapped, on which the negative policy is trained."""
        return Pair(self.prompt, self.rejected, self.chosen)


@dataclass(frozen=True)
class Pairs:
    """The usable pairs of a data set, and what was left out."""

    pairs: tuple[Pair, ...]
    equal: int
    """Rows dropped because chosen equals rejected."""
    undecided: int
    """Rows dropped because the label does not pick one answer."""
    long: int
    """Rows dropped because they exceed ``max_chars``."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the pairs, in order."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(json.dumps([pair.prompt, pair.chosen, pair.rejected]).encode())
            digest.update(b"\n")
        return digest.hexdigest()


class RowError(Exception):
    """A row that does not have the form that its format asks for."""


def pairs(row: Row, label: str | None) -> Pair | None:
    """prompt, chosen, rejected: plain text, or lists of messages."""
    return Pair(_prompt(row), _answer(row, "chosen"), _answer(row, "rejected"))


def instruction(row: Row, label: str | None) -> Pair | None:
    """instruction, input (may be absent or empty), chosen, rejected, as in the Alpaca form."""
    text = _text(row, "instruction")
    extra = row.get("input") or ""
    prompt = f"{text}\n\n{extra}" if extra else text
    return Pair((("user", prompt),), _answer(row, "chosen"), _answer(row, "rejected"))


def hh_rlhf(row: Row, label: str | None) -> Pair | None:
    """chosen, rejected: whole dialogues in one string each, as Anthropic published them."""
    prompt, chosen = _dialogue(_text(row, "chosen"), "chosen")
    other, rejected = _dialogue(_text(row, "rejected"), "rejected")
    if prompt != other:
        # A few rows of the published file part before their last turn: keep what is shared.
        return None
    return Pair(prompt, chosen, rejected)


def pku_saferlhf(row: Row, label: str | None) -> Pair | None:
    """prompt, response_0, response_1, and the label column that ``label:`` names."""
    known = ("better_response_id", "safer_response_id")
    if label not in known:
        hint = did_you_mean(label, known) if label else ""
        raise PvMergeError(
            "dataset: pku-saferlhf needs label: better_response_id (helpful) or "
            f"safer_response_id (harmless), got {label!r}{hint}"
        )
    return _response_pair(row, _index(row, label))


def safe_first(row: Row, label: str | None) -> Pair | None:
    """The columns of PKU-SafeRLHF, labelled as the paper's DPO-safe-first baseline labels them:
    the more helpful answer where both are safe, else the safer one."""
    both = bool(_value(row, "is_response_0_safe")) and bool(_value(row, "is_response_1_safe"))
    return _response_pair(row, _index(row, "better_response_id" if both else "safer_response_id"))


def ultrafeedback(row: Row, label: str | None) -> Pair | None:
    """chosen, rejected: lists of messages that share all but the last, as in UltraFeedback."""
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise RowError("chosen and rejected must share every message but the last")
    return Pair(chosen[:-1], chosen[-1][1], rejected[-1][1])


FORMATS: dict[str, Callable[[Row, str | None], Pair | None]] = {
    "pairs": pairs,
    "instruction": instruction,
    "hh-rlhf": hh_rlhf,
    "pku-saferlhf": pku_saferlhf,
    "safe-first": safe_first,
    "ultrafeedback": ultrafeedback,
}


def load_pairs(settings: DatasetSettings) -> Pairs:
    """Return the pairs of a data set.

    Raises ``PvMergeError`` if the file or format is unknown, if a row does not have the columns
    of its format, or if no usable row is left.
    """
    return convert(read_rows(settings), settings)


def convert(rows: Iterable[Row], settings: DatasetSettings) -> Pairs:
    """Return ``rows`` as pairs, by the format that ``settings`` names."""
    if settings.format not in FORMATS:
        hint = did_you_mean(settings.format, FORMATS)
        raise PvMergeError(f"{settings.path}: unknown format {settings.format!r}{hint}")
    to_pair = FORMATS[settings.format]
    kept: list[Pair] = []
    equal = undecided = long = count = 0
    for count, row in enumerate(rows, start=1):
        try:
            pair = to_pair(row, settings.label)
        except RowError as error:
            columns = ", ".join(sorted(str(key) for key in row))
            raise PvMergeError(
                f"{settings.path}: row {count} is not of the format {settings.format}: {error} "
                f"(its columns: {columns}; formats: {', '.join(FORMATS)})"
            ) from None
        if pair is None:
            undecided += 1
        elif pair.chosen == pair.rejected:
            equal += 1
        elif settings.max_chars is not None and _characters(pair) > settings.max_chars:
            long += 1
        else:
            kept.append(pair)
            if settings.max_rows is not None and len(kept) >= settings.max_rows:
                break
    if count == 0:
        raise PvMergeError(f"{settings.path}: the data set is empty (split {settings.split})")
    if not kept:
        raise PvMergeError(
            f"{settings.path}: no usable row of {count}: in {equal} chosen equals rejected, "
            f"{undecided} have no clear label, {long} are over max_chars; are the columns right?"
        )
    return Pairs(tuple(kept), equal, undecided, long)


def read_rows(settings: DatasetSettings) -> Iterator[Row]:
    """Yield the raw rows of a local file or folder, or of a data set on the Hub."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    kinds = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
    path = Path(settings.path)
    arguments: dict[str, Any] = {"path": settings.path}
    if path.is_file():
        suffixes = [part for part in path.suffixes if part != ".gz"]
        kind = kinds.get(suffixes[-1].lstrip(".").lower() if suffixes else "")
        if kind is None:
            raise PvMergeError(f"{path}: expected a file that ends in {', '.join(kinds)} (or .gz)")
        if path.stat().st_size == 0:
            raise PvMergeError(f"{path}: the file is empty")
        arguments = {"path": kind, "data_files": {_split_name(settings.split): str(path)}}
    elif settings.path.startswith((".", "/", "~")) and not path.is_dir():
        raise PvMergeError(f"{settings.path}: no such file or folder")
    if not path.exists():
        arguments |= {"name": settings.name, "revision": settings.revision}
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(**arguments, split=settings.split)
    except DatasetGenerationError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise PvMergeError(f"{settings.path}: cannot be read as rows ({reason})") from None
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PvMergeError(f"{settings.path}: cannot be loaded ({reason})") from None
    yield from rows


def _split_name(split: str) -> str:
    return split.partition("[")[0] or "train"


def _characters(pair: Pair) -> int:
    prompt = sum(len(text) for _, text in pair.prompt)
    return prompt + max(len(pair.chosen), len(pair.rejected))


def _value(row: Row, key: str) -> Any:
    if row.get(key) is None:
        raise RowError(f"{key} is missing{did_you_mean(key, map(str, row))}")
    return row[key]


def _text(row: Row, key: str) -> str:
    value = _value(row, key)
    if not isinstance(value, str):
        raise RowError(f"{key} must be text, got {type(value).__name__}")
    return value


def _messages(row: Row, key: str) -> tuple[tuple[str, str], ...]:
    value = _value(row, key)
    if not isinstance(value, list) or not value:
        raise RowError(f"{key} must be a list of messages")
    try:
        return tuple((message["role"], message["content"]) for message in value)
    except (KeyError, TypeError):
        raise RowError(f"{key} must be messages with role and content") from None


def _prompt(row: Row) -> tuple[tuple[str, str], ...]:
    if isinstance(row.get("prompt"), list):
        return _messages(row, "prompt")
    return (("user", _text(row, "prompt")),)


def _answer(row: Row, key: str) -> str:
    if isinstance(row.get(key), list):
        messages = _messages(row, key)
        if len(messages) != 1:
            raise RowError(f"{key} must be one message, the answer; for whole dialogues use ultrafeedback")
        return messages[0][1]
    return _text(row, key)


def _index(row: Row, key: str) -> int | None:
    value = _value(row, key)
    return value if value in (0, 1) else None


def _response_pair(row: Row, better: int | None) -> Pair | None:
    prompt, answers = _text(row, "prompt"), (_text(row, "response_0"), _text(row, "response_1"))
    if better is None:
        return None
    return Pair((("user", prompt),), answers[better], answers[1 - better])


def _dialogue(text: str, key: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Split ``\\n\\nHuman: … \\n\\nAssistant: …`` into the prompt's messages and the last answer."""
    marks = (("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant"))
    turns: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        found = [(text.find(mark, position), mark, role) for mark, role in marks]
        found = sorted(item for item in found if item[0] >= 0)
        if not found or (not turns and found[0][0] != 0):
            break
        start, mark, role = found[0]
        ends = [text.find(other, start + len(mark)) for other, _ in marks]
        end = min((value for value in ends if value >= 0), default=len(text))
        turns.append((role, text[start + len(mark) : end].strip()))
        position = end
    if len(turns) < 2 or turns[0][0] != "user" or turns[-1][0] != "assistant":
        raise RowError(f'{key} must be a dialogue from "\\n\\nHuman:" to a last "\\n\\nAssistant:"')
    return tuple(turns[:-1]), turns[-1][1]
