"""A progress bar for commands that go through weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, or write lines without a terminal; yield a function that is told (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from pv_merge.progress import progress as display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    progress = display(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(label, total=None)

    def advance(done: int, total: int) -> None:
        progress.start()  # not before there is something to show, nor again
        progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def counted(console: Console) -> Iterator[Counted]:
    """Show a bar with counts, time spent and time left, as soon as the number of units is known."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from pv_merge.progress import progress as display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = display(*columns, console=console)
    try:
        yield Counted(progress)
    finally:
        if progress.live.is_started:
            progress.stop()


class Counted:
    """A bar that is told how many units there are, and of those that are done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("measuring", total=None)

    def started(self, total: int) -> None:
        """Start anew with ``total`` units; the bar is not shown before."""
        self._progress.start()
        self._progress.update(self._task, total=max(total, 1), completed=0 if total else 1)

    def advance(self, count: int) -> None:
        """Add units that are done."""
        self._progress.advance(self._task, count)

    def describe(self, text: str) -> None:
        """Say what is being done."""
        self._progress.update(self._task, description=text)
