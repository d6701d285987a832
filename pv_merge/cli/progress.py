"""A progress bar for commands that go through weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
