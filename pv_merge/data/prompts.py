"""Prompts to be answered: XSTest, TruthfulQA, JBB-Behaviors, or any csv, json lines or text file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv_merge.data.documents import parse_object, read_text
from pv_merge.errors import PvMergeError, did_you_mean

COLUMNS = ("prompt", "question", "instruction", "goal", "text")
"""Columns that may hold the prompt, the first that is there; upper or lower case."""
ANSWERABLE = {
    "safe": True,
    "benign": True,
    "harmless": True,
    "unsafe": False,
    "harmful": False,
    "toxic": False,
}
"""Labels, and whether such a prompt should be answered."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, and whether it should be answered rather than refused."""

    text: str
    answerable: bool = True


def read_prompts(place: str, limit: int | None = None) -> list[Prompt]:
    """Return the prompts of ``FILE`` or ``FILE:safe`` or ``FILE:unsafe``.

    The ending names the form: csv (a column of ``COLUMNS``, and ``label`` if there is one), jsonl
    (the same keys; ``prompt`` may be messages, of which the last one counts), txt (one a line).
    Without labels every prompt should be answered, unless ``:unsafe`` says otherwise, or the file is
    XSTest or JBB-Behaviors (``harmful-behaviors.csv``, ``benign-behaviors.csv``) and says it otherwise. With
    ``limit``, the first so many of each label.
    """
    path, stated = Path(place), None
    if not path.exists():
        head, colon, word = place.rpartition(":")
        if colon and Path(head).exists():
            if word not in ANSWERABLE:
                raise PvMergeError(
                    f"{place}: unknown label {word!r}{did_you_mean(word, ANSWERABLE)}"
                )
            path, stated = Path(head), ANSWERABLE[word]
        else:
            raise PvMergeError(f"{place}: no such file")
    readers = {".csv": _csv, ".jsonl": read_jsonl, ".txt": _txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PvMergeError(f"{path}: expected a file that ends in csv, jsonl or txt")
    try:
        rows = reader(path)
    except UnicodeDecodeError:
        raise PvMergeError(f"{path}: is not text in UTF-8") from None
    prompts = [_prompt(row, path, number, stated) for number, row in enumerate(rows, start=1)]
    if not prompts:
        raise PvMergeError(f"{path}: holds no prompts")
    return prompts if limit is None else _first(prompts, limit)


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """Return the SHA-256 of prompts with their labels, in order."""
    rows = [[prompt.text, prompt.answerable] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _first(prompts: list[Prompt], limit: int) -> list[Prompt]:
    kept: list[Prompt] = []
    counts: dict[bool, int] = {}
    for prompt in prompts:
        counts[prompt.answerable] = counts.get(prompt.answerable, 0) + 1
        if counts[prompt.answerable] <= limit:
            kept.append(prompt)
    return kept


def _prompt(row: Mapping[str, Any], path: Path, number: int, stated: bool | None) -> Prompt:
    cells = {str(key).lower(): value for key, value in row.items()}
    column = next((name for name in COLUMNS if cells.get(name)), None)
    if column is None:
        raise PvMergeError(
            f"{path}: row {number} has no prompt; expected one of the columns {', '.join(COLUMNS)}, "
            f"got {', '.join(str(key) for key in row)}"
        )
    value = cells[column]
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise PvMergeError(f"{path}: row {number}: {column} must be text or messages")
    label = cells.get("label")
    if stated is not None:
        return Prompt(value, stated)
    if not isinstance(label, str) or not label:
        return Prompt(value, _answerable(cells, path))
    if label.lower() not in ANSWERABLE:
        hint = did_you_mean(label.lower(), ANSWERABLE)
        raise PvMergeError(f"{path}: row {number}: unknown label {label!r}{hint}")
    return Prompt(value, ANSWERABLE[label.lower()])


def _answerable(cells: Mapping[str, Any], path: Path) -> bool:
    """Return whether a prompt without a label should be answered.

    XSTest's older file says it by ``type``, JBB-Behaviors by the name of the file. Raises
    ``PvMergeError`` for JBB-Behaviors under another name, since half of it should be refused.
    """
    if {"type", "focus"} <= set(cells):
        return not str(cells["type"]).startswith("contrast_")
    if {"goal", "behavior"} <= set(cells):
        words = [word for word in ANSWERABLE if word in re.split(r"[^a-z]+", path.stem.lower())]
        if len({ANSWERABLE[word] for word in words}) != 1:
            raise PvMergeError(
                f"{path}: are these JBB-Behaviors harmful or benign? Say {path}:unsafe or {path}:safe"
            )
        return ANSWERABLE[words[0]]
    return True


def _csv(path: Path) -> list[dict[str, Any]]:
    text = read_text(path).removeprefix("\ufeff")
    try:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise PvMergeError(f"{path}: is not valid csv ({error})") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(parse_object(line, f"{path}: line {number}"))
    return rows


def _txt(path: Path) -> list[dict[str, Any]]:
    return [{"prompt": line} for line in read_text(path).splitlines() if line.strip()]
