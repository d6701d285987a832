"""A recipe on the bench: its base loaded, its vectors ready, its journal open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.provenance import command_line, recipe_subject, versions
from pv_merge.evaluation.bench import Bench
from pv_merge.evaluation.journal import Journal
from pv_merge.evaluation.measure import Measure
from pv_merge.live.subject import load_subject

if TYPE_CHECKING:
    from pv_merge.recipe.opened import OpenRecipe


@contextmanager
def open_bench(opened: OpenRecipe, measures: Sequence[Measure], journal: Path) -> Iterator[Bench]:
    """Yield a bench for a recipe; the live model's weights are the base's again afterwards."""
    from pv_merge.live.weights import LiveMerge

    record = Journal(
        journal,
        recipe_subject(opened.recipe.text),
        {"versions": versions(), "command": command_line()},
    )
    subject = load_subject(opened.recipe.base_model)
    with LiveMerge(opened, subject.model) as live:
        yield Bench(subject, live, measures, record)


def progress_bar(console: Any = None) -> Any:
    """Return a progress bar with counts, time spent and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
