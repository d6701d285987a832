"""JSON and YAML as everything here reads them: bounded, each key once, plain values only.

Whatever is wrong with a file is one ``PvMergeError`` that names the file and the cause.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pv_merge.data.plain_yaml import PlainLoader
from pv_merge.data.value_words import kind_of, shown
from pv_merge.errors import PvMergeError, Topic, os_errors, raise_all

JSON_BYTES = 256 << 20
"""Size of a JSON file above which it is not read: a large vocabulary has 30 MB."""
YAML_BYTES = 1 << 20
"""Size of a YAML text above which it is not read."""
DEPTH = 100
"""How deep lists and mappings may be nested."""
VALUES = 100_000
"""Values that a YAML text may stand for, its aliases written out."""

Model = TypeVar("Model", bound=BaseModel)


def read_text(path: str | Path, limit: int = JSON_BYTES) -> str:
    """Return the UTF-8 text of an ordinary file of at most ``limit`` bytes."""
    place = Path(path)
    try:
        with os_errors(path, "read"):
            status = place.stat()
            if stat.S_ISDIR(status.st_mode):
                raise PvMergeError(f"{path}: is a folder, not a file", Topic.FOLDER)
            if not stat.S_ISREG(status.st_mode):
                raise PvMergeError(
                    f"{path}: is not an ordinary file (a pipe or a device?)", Topic.SYNTAX
                )
            with place.open("rb") as file:
                content = file.read(limit + 1)
    except ValueError:  # a NUL in the name
        raise PvMergeError(f"{str(path)!r}: is not a name of a file", Topic.SYNTAX) from None
    if len(content) > limit:
        raise PvMergeError(
            f"{path}: is larger than {limit >> 20} MiB; is it the file you mean?", Topic.SYNTAX
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PvMergeError(
            f"{path}: is not text in UTF-8 (byte {error.start + 1}); was it saved in another encoding?",
            Topic.SYNTAX,
        ) from None


def read_json(path: str | Path) -> Any:
    """Return the JSON value in a file; ``PvMergeError`` if it is missing or not plain JSON."""
    return parse_json(read_text(path), path)


def read_object(path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a file; ``PvMergeError`` for any other value."""
    return parse_object(read_text(path), path)


def parse_object(text: str | bytes, where: object) -> dict[str, Any]:
    """Return the object that a JSON text holds; errors name ``where`` it comes from."""
    return mapping(parse_json(text, where), where)


def mapping(value: Any, where: object) -> dict[str, Any]:
    """Return ``value`` if it is an object with keys; ``PvMergeError`` for any other."""
    if not isinstance(value, dict):
        raise PvMergeError(
            f"{where}: expected an object with keys, got {kind_of(value)}", Topic.SYNTAX
        )
    return value


def parse_json(text: str | bytes, where: object) -> Any:
    """Return the value of a JSON text; errors name ``where`` it comes from."""
    try:
        written = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(written, object_pairs_hook=_unique)
    except RecursionError:
        raise _too_deep(where) from None
    except UnicodeDecodeError:
        raise PvMergeError(f"{where}: is not text in UTF-8", Topic.SYNTAX) from None
    except ValueError as error:
        raise PvMergeError(
            f"{where}: not valid JSON ({error}); was it cut short?", Topic.SYNTAX
        ) from None
    except _DuplicateKeyError as error:
        raise PvMergeError(
            f"{where}: the key {shown(error.args[0])} stands there twice", Topic.SYNTAX
        ) from None
    _bounded(value, where, halves=bool(_HALF_ESCAPE.search(written)))
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; ``PvMergeError`` for anything else."""
    return parse_yaml(read_text(path, YAML_BYTES), path)


def parse_yaml(text: str, where: object) -> dict[str, Any]:
    """Return the mapping that a YAML text holds; errors name ``where`` it comes from."""
    value = parse_yaml_value(text, where)
    if not isinstance(value, dict):
        raise PvMergeError(
            f"{where}: expected keys such as base_model:, got {kind_of(value)}", Topic.SYNTAX
        )
    return value


def parse_yaml_value(text: str, where: object) -> Any:
    """Return the value of a YAML text, of any type."""
    if len(text) > YAML_BYTES:
        raise PvMergeError(f"{where}: is larger than {YAML_BYTES >> 20} MiB", Topic.SYNTAX)
    try:
        value = yaml.load(text, PlainLoader)
    except RecursionError:
        raise _too_deep(where) from None
    except yaml.YAMLError as error:
        raise PvMergeError(
            f"{where}: not valid YAML ({' '.join(str(error).split())})", Topic.SYNTAX
        ) from None
    except (ValueError, OverflowError) as error:  # such as 0x_, which looks like a number
        raise PvMergeError(f"{where}: not valid YAML ({error})", Topic.SYNTAX) from None
    _bounded(value, where, halves="\\" in text, most=VALUES)
    return value


def validated(model: type[Model], data: Any, where: object) -> Model:
    """Return ``data`` as a pydantic model; ``PvMergeError`` with a line for each wrong value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems: dict[str, None] = {}
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            said = "is required" if item["type"] == "missing" else _expected(item)
            problems[f"{where}: {key}: {said}" if key else f"{where}: {said}"] = None
        raise_all(list(problems), Topic.SYNTAX)
    raise AssertionError("unreachable")


_HALF_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")


class _DuplicateKeyError(Exception):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return found


def _bounded(value: Any, where: object, *, halves: bool, most: int | None = None) -> None:
    """Refuse what is nested too deep, has too many values by its aliases, or half characters."""
    waiting, count = [(value, 1)], 0
    while waiting:
        item, depth = waiting.pop()
        if halves and isinstance(item, str) and _HALF.search(item):
            raise PvMergeError(
                f"{where}: {shown(item)} holds half a character (a lone surrogate)", Topic.SYNTAX
            )
        if not isinstance(item, dict | list):
            continue
        if depth > DEPTH:
            raise _too_deep(where)
        count += len(item)
        if most is not None and count > most:
            raise PvMergeError(f"{where}: stands for more than {most} values", Topic.SYNTAX)
        parts = item.values() if isinstance(item, dict) else item
        if halves and isinstance(item, dict):
            waiting += [(key, depth) for key in item]
        waiting += [(part, depth + 1) for part in parts if halves or isinstance(part, dict | list)]


def _too_deep(where: object) -> PvMergeError:
    return PvMergeError(f"{where}: is nested more than {DEPTH} levels deep", Topic.SYNTAX)


def _expected(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {message}, got {shown(item['input'])}"
