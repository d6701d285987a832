"""Progress for those who look and for those who do not: a bar on a terminal, lines elsewhere.

Without a terminal (Slurm, nohup, CI) there is a line at each tenth and at least every 30 seconds, on
stderr. ``PV_LOG=json`` makes each an object of JSON, on a terminal too. What is over in a moment says
nothing.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID

EVERY = 30.0
"""Seconds after which there is a line in any case."""
MOMENT = 2.0
"""Seconds that lie at least between two lines."""


def progress(
    *columns: str | ProgressColumn, console: Console | None = None, **options: Any
) -> Progress:
    """Return rich's Progress, or one that writes lines where nobody looks.

    A task's fields ``unit`` (``step``), ``note`` (text) and ``figures`` (numbers by name) are shown.
    """
    console = console or Console(stderr=True)
    as_json = os.environ.get("PV_LOG") == "json"
    if options.get("disable") or (console.is_terminal and not as_json):
        return Progress(*columns, console=console, **options)
    return Lines(*columns, console=console, as_json=as_json)


def say(bar: Progress, line: str) -> None:
    """Write a line beside a Progress, in the form that its own lines have."""
    if isinstance(bar, Lines) and bar.as_json:
        bar.write(json.dumps({"time": _now(), "message": line}))
    else:
        bar.console.print(line, markup=False, highlight=False)


@dataclass
class _Said:
    """When a task began, and when it was last spoken of."""

    start: float
    first: float
    """What was done already when it began."""
    at: float
    tenth: int


class Lines(Progress):
    """A Progress that draws no bar and writes lines."""

    def __init__(self, *columns: str | ProgressColumn, console: Console, as_json: bool) -> None:
        super().__init__(*columns, console=console, disable=True)
        self.as_json = as_json
        self._said: dict[TaskID, _Said] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Take over what changed, and write a line if one is due."""
        super().update(task_id, **changes)
        self._consider(self._tasks[task_id])

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count on, and write a line if one is due."""
        super().advance(task_id, advance)
        self._consider(self._tasks[task_id])

    def _consider(self, task: Task) -> None:
        now = time.monotonic()
        said = self._said.get(task.id)
        tenth = int(10 * task.completed / task.total) if task.total else 0
        if said is None or tenth < said.tenth:  # new, or started anew
            self._said[task.id] = _Said(now, task.completed, now, tenth)
            return
        passed = now - said.at
        if passed >= EVERY or (passed >= MOMENT and tenth > said.tenth):
            said.at, said.tenth = now, tenth
            self._write(task, now - said.start, task.completed - said.first)

    def _write(self, task: Task, seconds: float, done: float) -> None:
        left = None
        if task.total and done > 0:
            left = seconds / done * (task.total - task.completed)
        self.write((_object if self.as_json else _line)(task, seconds, left))

    def write(self, line: str) -> None:
        """Write a line as it is, whatever its length."""
        self.console.file.write(line + "\n")
        self.console.file.flush()


def _line(task: Task, seconds: float, left: float | None) -> str:
    unit = task.fields.get("unit")
    done = f"{task.completed:g} of {task.total:g}" if task.total else f"{task.completed:g}"
    if unit is None and task.total:
        done = f"{task.completed / task.total:.0%}"
    parts = [f"{task.description}: {unit} {done}" if unit else f"{task.description}: {done}"]
    if task.fields.get("note"):
        parts.append(str(task.fields["note"]))
    parts.append(f"{clock(seconds)} gone" if left is None else f"{clock(left)} left")
    return ", ".join(parts)


def _object(task: Task, seconds: float, left: float | None) -> str:
    found = {
        "time": _now(),
        "task": task.description,
        task.fields.get("unit") or "done": task.completed,
        "of": task.total,
        "seconds": round(seconds, 1),
        "seconds_left": None if left is None else round(left, 1),
        **(task.fields.get("figures") or {}),
    }
    return json.dumps(found, allow_nan=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def clock(seconds: float) -> str:
    """Return seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
