"""The raw rows of a data set: a local file or folder, or a name on the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError, did_you_mean

Row = Mapping[str, Any]

KINDS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
"""Endings of local files, with the loader of ``datasets`` that reads each."""


class RowError(Exception):
    """A row that does not have the form that its format asks for."""


def read_rows(settings: DatasetSettings) -> Iterator[Row]:
    """Yield the rows. Raises ``PvMergeError`` where they cannot be found or read."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(settings.path)
    arguments: dict[str, Any] = {"path": settings.path}
    if path.is_file():
        suffixes = [part for part in path.suffixes if part != ".gz"]
        kind = KINDS.get(suffixes[-1].lstrip(".").lower() if suffixes else "")
        if kind is None:
            raise PvMergeError(f"{path}: expected a file that ends in {', '.join(KINDS)} (or .gz)")
        if path.stat().st_size == 0:
            raise PvMergeError(f"{path}: the file is empty")
        arguments = {"path": kind, "data_files": {_split_name(settings.split): str(path)}}
    elif settings.path.startswith((".", "/", "~")) and not path.is_dir():
        raise PvMergeError(f"{settings.path}: no such file or folder")
    if not path.exists():
        arguments |= {"name": settings.name, "revision": settings.revision}
        if settings.data_dir is not None:
            arguments["data_dir"] = settings.data_dir
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


def value(row: Row, key: str) -> Any:
    """Return a column's value; ``RowError`` if it is missing or null."""
    if row.get(key) is None:
        raise RowError(f"{key} is missing{did_you_mean(key, map(str, row))}")
    return row[key]


def text(row: Row, key: str) -> str:
    """Return a column's text; ``RowError`` if it is something else."""
    found = value(row, key)
    if not isinstance(found, str):
        raise RowError(f"{key} must be text, got {type(found).__name__}")
    return found


def messages(row: Row, key: str) -> tuple[tuple[str, str], ...]:
    """Return a column's messages as (role, text); ``RowError`` if it holds something else."""
    found = value(row, key)
    if not isinstance(found, list) or not found:
        raise RowError(f"{key} must be a list of messages")
    turns = []
    for message in found:
        said = [message.get(part) for part in ("role", "content")] if _is_row(message) else []
        if len(said) != 2 or not all(isinstance(part, str) for part in said):
            raise RowError(f"{key} must be messages with role and content, both text")
        turns.append((said[0], said[1]))
    return tuple(turns)


def _is_row(value: object) -> bool:
    return isinstance(value, Mapping)


def instruction_prompt(row: Row) -> str:
    """Return the prompt of an Alpaca row: the instruction, and the input below it if there is one."""
    instruction = text(row, "instruction")
    extra = text(row, "input") if row.get("input") is not None else ""
    return f"{instruction}\n\n{extra}" if extra else instruction
