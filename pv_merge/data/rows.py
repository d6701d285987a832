"""The raw rows of a data set: a local file or folder, or a name on the Hub."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pv_merge.data.json_rows import json_rows, refuse_compressed, refuse_deep
from pv_merge.data.settings import DatasetSettings
from pv_merge.errors import PvMergeError, did_you_mean, first_line, os_errors

Row = Mapping[str, Any]

KINDS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
"""Endings of local files, with the loader of ``datasets`` that reads each."""


class RowError(Exception):
    """A row that does not have the form that its format asks for."""


def read_rows(settings: DatasetSettings) -> Iterator[Row]:
    """Yield the rows. Raises ``PvMergeError`` where they cannot be found or read."""
    path = Path(settings.path)
    with os_errors(path, "read"):
        is_file, is_folder = path.is_file(), path.is_dir()
    kind = _kind(path) if is_file else None
    if kind == "json":
        yield from _part(settings, lambda: json_rows(path))
        return
    if settings.path.startswith((".", "/", "~")) and not (is_file or is_folder):
        what = "is not an ordinary file" if path.exists() else "no such file or folder"
        raise PvMergeError(f"{settings.path}: {what}")
    yield from _loaded(settings, path, kind)


def _kind(path: Path) -> str:
    """Return which loader reads a file."""
    suffixes = [part for part in path.suffixes if part != ".gz"]
    kind = KINDS.get(suffixes[-1].lstrip(".").lower() if suffixes else "")
    if kind is None:
        raise PvMergeError(f"{path}: expected a file that ends in {', '.join(KINDS)} (or .gz)")
    if path.stat().st_size == 0:
        raise PvMergeError(f"{path}: the file is empty")
    refuse_compressed(path)
    return kind


def _part(settings: DatasetSettings, read: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows that the split asks for, such as ``train[:10%]``."""
    if "[" not in settings.split:
        yield from read()
        return
    import datasets

    name = _split_name(settings.split)
    with _one_line(settings.path):
        wanted = datasets.ReadInstruction.from_spec(settings.split)
        parts = wanted.to_absolute({name: sum(1 for _ in read())})
    for part in parts:
        yield from itertools.islice(read(), part.from_, part.to)


def _loaded(settings: DatasetSettings, path: Path, kind: str | None) -> Iterator[Row]:
    """Yield the rows as the library ``datasets`` loads them."""
    import datasets

    arguments: dict[str, Any] = {"path": settings.path}
    if kind is not None:
        arguments = {"path": kind, "data_files": {_split_name(settings.split): str(path)}}
    elif path.is_dir():
        refuse_deep(path)
    else:
        arguments |= {"name": settings.name, "revision": settings.revision}
        if settings.data_dir is not None:
            arguments["data_dir"] = settings.data_dir
    datasets.disable_progress_bars()
    with _one_line(settings.path):
        rows = iter(datasets.load_dataset(**arguments, split=settings.split))
    while True:
        with _one_line(settings.path):
            row = next(rows, None)
        if row is None:
            return
        yield row


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Turn what the loader raises into one line, without those that it logs besides."""
    from datasets.exceptions import DatasetGenerationError

    logger = logging.getLogger("datasets")
    before, logger.level = logger.level, logging.CRITICAL
    try:
        yield
    except DatasetGenerationError as error:
        reason = first_line(error.__cause__ or error)
        raise PvMergeError(f"{path}: cannot be read as rows ({reason})") from None
    except (ValueError, OSError, RecursionError) as error:
        raise PvMergeError(f"{path}: cannot be loaded ({first_line(error)})") from None
    finally:
        logger.level = before


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
