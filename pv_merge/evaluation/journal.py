"""A file of JSON lines that grows as things are measured, so that a killed run loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import only_writer
from pv_merge.data.documents import parse_object
from pv_merge.errors import PvMergeError, os_errors

Point = Mapping[str, float | None]
"""Eta of every preference of a recipe; None where the recipe's own gradient stands."""


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def point_key(point: Point) -> str:
    """Return one text for one point, whatever the order of its preferences."""
    return json.dumps({name: _number(point[name]) for name in sorted(point)})


class Journal:
    """Records by (point, measure). The first line says what model they are of, by a hash.

    Raises ``PvMergeError`` if the file was begun with another model, or if a measure of it had
    other data or settings. A last line that was cut short by a kill is dropped.
    """

    def __init__(self, path: Path, subject: Mapping[str, Any], header: Mapping[str, Any]) -> None:
        self.path = path
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        self._parts: dict[tuple[str, str], dict[str, Any]] = {}
        self._measures: dict[str, str] = {}
        first = {"kind": "header", "hash": digest(subject), "subject": dict(subject), **header}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._read()
        if not lines:
            self._append(first)
            return
        if lines[0].get("kind") != "header":
            raise PvMergeError(
                f"{path}: its first line is no header; was another tool's file put there?"
            )
        self._check_subject(lines[0], first)
        for number, line in enumerate(lines[1:], start=2):
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise PvMergeError(
                    f"{path}: line {number} is not as it was written; delete that line to continue"
                ) from None

    def declare(self, measure: str, identity: Mapping[str, Any]) -> None:
        """Say what a measure depends on, before its first record."""
        known, found = self._measures.get(measure), digest(identity)
        if known is None:
            self._append(
                {"kind": "measure", "measure": measure, "hash": found, "identity": identity}
            )
            self._measures[measure] = found
        elif known != found:
            raise PvMergeError(
                f"{self.path}: {measure} was measured with other data or settings before; restore "
                "those to continue, or name another folder"
            )

    def get(self, point: Point, measure: str) -> dict[str, Any] | None:
        """Return the record of a measure at a point, or None."""
        line = self._records.get((point_key(point), measure))
        return None if line is None else line["record"]

    def seconds(self) -> list[tuple[str, str, float]]:
        """Return (point, measure, seconds) of every record."""
        return [(p, m, float(line["seconds"])) for (p, m), line in self._records.items()]

    def put(
        self, point: Point, measure: str, record: Any, seconds: float, figures: Mapping[str, Any]
    ) -> None:
        """Write a record; it is on disk when this returns."""
        line = {
            "kind": "record",
            "point": dict(point),
            "measure": measure,
            "seconds": round(seconds, 3),
            "figures": dict(figures),
            "record": record,
        }
        self._append(line)
        self._take(line)

    def parts(self, point: Point, measure: str) -> PointParts:
        """Return where a measure keeps what it has done of one point."""
        return PointParts(self, point, measure)

    def get_parts(self, point: Point, measure: str) -> dict[str, Any]:
        """Return all kept parts, by name."""
        return self._parts.get((point_key(point), measure), {})

    def put_part(self, point: Point, measure: str, part: str, value: Any) -> None:
        """Keep a part."""
        line = {
            "kind": "part",
            "point": dict(point),
            "measure": measure,
            "part": part,
            "value": value,
        }
        self._append(line)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        kind = line.get("kind")
        if kind == "measure":
            self._measures[line["measure"]] = line["hash"]
        elif kind == "record":
            self._records[point_key(line["point"]), line["measure"]] = line
        elif kind == "part":
            key = (point_key(line["point"]), line["measure"])
            self._parts.setdefault(key, {})[line["part"]] = line["value"]

    def _check_subject(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        if found.get("hash") == wanted["hash"]:
            return
        old, new = found.get("subject", {}), wanted["subject"]
        changed = [str(key) for key in new if old.get(key) != new[key]]
        raise PvMergeError(
            f"{self.path}: was begun with another model ({', '.join(changed) or 'its hash'} changed); "
            "restore it to continue, or name another folder"
        )

    def _append(self, line: Mapping[str, Any]) -> None:
        with os_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[dict[str, Any]]:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole = raw.rpartition(b"\n")[0] + b"\n" if b"\n" in raw else b""
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))
        lines = []
        for number, text in enumerate(whole.decode("utf-8", "replace").split("\n")[:-1], start=1):
            try:
                value = parse_object(text, self.path)
            except PvMergeError:
                raise PvMergeError(
                    f"{self.path}: line {number} is not JSON; delete that line to continue"
                ) from None
            lines.append(value)
        return lines


@contextmanager
def open_journal(
    path: Path, subject: Mapping[str, Any], header: Mapping[str, Any]
) -> Iterator[Journal]:
    """Yield a journal that nobody else writes meanwhile; ``PvMergeError`` where another does."""
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(path):
        yield Journal(path, subject, header)


class PointParts:
    """Parts of one measure at one point."""

    def __init__(self, journal: Journal, point: Point, measure: str) -> None:
        self._journal, self._point, self._measure = journal, point, measure

    def all(self) -> dict[str, Any]:
        """Return all kept parts, by name."""
        return dict(self._journal.get_parts(self._point, self._measure))

    def put(self, part: str, value: Any) -> None:
        """Keep a part."""
        self._journal.put_part(self._point, self._measure, part, value)

    def shared(self, name: str) -> PointParts:
        """Return the parts of this point that all measures have in common; ``name`` is no measure's."""
        return PointParts(self._journal, self._point, f"shared {name}")


def _number(value: float | None) -> float | None:
    return None if value is None else float(value) + 0.0
