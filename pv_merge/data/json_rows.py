"""Rows of JSON files, read a line at a time by the one reader of JSON, within limits.

The usual loaders read such files in compiled code, which a row that is nested deep enough ends with
a crash of the whole process.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pv_merge.data.documents import mapping, parse_json, parse_object
from pv_merge.errors import PvMergeError, Topic, os_errors

LINE_BYTES = 16 << 20
"""Size of a row above which it is not read."""
WHOLE_BYTES = 256 << 20
"""Size of a file above which it must have a row a line, not one list of rows."""
RATIO = 200
"""How many times larger than itself a compressed file may be; JSON has about 5."""
SMALL = 16 << 20
"""Size up to which that does not matter."""
GZIP = b"\x1f\x8b"
OTHERS = {
    b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstandard", b"PK\x03\x04": "zip",
    b"\x04\x22\x4d\x18": "lz4", b"7z\xbc\xaf": "7z", b"Rar!": "rar",
}  # fmt: skip
"""How files begin that are compressed in another way."""


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, or of one JSON list; it may be gzipped.

    Raises ``PvMergeError`` for what is not one, with the number of the line.
    """
    with _opened(path) as file:
        start = file.read(LINE_BYTES + 1)
        if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _listed(path, start + file.read(WHOLE_BYTES))
            return
    with _opened(path) as file:
        number = 0
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise PvMergeError(
                    f"{path}: line {number} is larger than {LINE_BYTES >> 20} MiB; is it a row?"
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield parse_object(line, f"{path}: line {number}")


def _listed(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    if len(content) > WHOLE_BYTES:
        raise PvMergeError(
            f"{path}: is one list of more than {WHOLE_BYTES >> 20} MiB; write a row a line"
        )
    rows = parse_json(content.removeprefix(b"\xef\xbb\xbf"), path)
    for number, row in enumerate(rows, start=1):
        yield mapping(row, f"{path}: row {number}")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with os_errors(path, "read"), _unpacked(path) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PvMergeError(f"{path}: is not a whole gzip file ({error})") from None


def _unpacked(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if is_gzip(path) else path.open("rb")


def is_gzip(path: Path) -> bool:
    """Return whether a file is gzipped, whatever it is called."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def refuse_compressed(path: Path) -> None:
    """Raise ``PvMergeError`` for a file that would be unpacked to something far larger, or not by us."""
    with os_errors(path, "read"), path.open("rb") as file:
        start = file.read(8)
    for magic, name in OTHERS.items():
        if start.startswith(magic):
            raise PvMergeError(
                f"{path}: is compressed by {name}; only gzip is read, so unpack it", Topic.SYNTAX
            )
    if not start.startswith(GZIP):
        return
    limit = max(SMALL, RATIO * path.stat().st_size)
    size = 0
    with _opened(path) as unpacked:
        while part := unpacked.read(1 << 20):
            size += len(part)
            if size > limit:
                raise PvMergeError(
                    f"{path}: unpacks to more than {RATIO} times its size; is it what it says?",
                    Topic.SYNTAX,
                )


def refuse_deep(folder: Path) -> None:
    """Raise ``PvMergeError`` where a JSON file in a folder of data has a line that is nested too deep."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix.lower() == ".md":
            continue
        refuse_compressed(path)
        if {".json", ".jsonl"} & {part.lower() for part in path.suffixes}:
            with _opened(path) as file:
                while line := file.readline(LINE_BYTES + 1):
                    _refuse_nested(line, path)


def _refuse_nested(line: bytes, path: Path) -> None:
    """Count brackets outside texts; more than ``DEPTH`` open at once are too deep."""
    from pv_merge.data.documents import DEPTH

    if line.count(b"[") + line.count(b"{") <= DEPTH:
        return
    depth, quoted, escaped = 0, False, False
    for char in line:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == 0x5C, char != 0x22
        elif char == 0x22:
            quoted = True
        elif char in b"[{":
            depth += 1
            if depth > DEPTH:
                raise PvMergeError(f"{path}: is nested more than {DEPTH} levels deep", Topic.SYNTAX)
        elif char in b"]}":
            depth -= 1
