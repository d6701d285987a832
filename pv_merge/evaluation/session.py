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
    from pv_merge.recipe.recipe import Recipe


@contextmanager
def open_bench(recipe: Recipe, measures: Sequence[Measure], journal: Path) -> Iterator[Bench]:
    """Yield a bench for a recipe; its weights are the base's again afterwards.

    Raises ``PvMergeError`` with every error that the check finds, before anything is loaded.
    """
    from pv_merge.live.weights import LiveMerge
    from pv_merge.recipe.checks.check import check, raise_errors

    raise_errors(check(recipe.path))
    record = Journal(
        journal, recipe_subject(recipe.path), {"versions": versions(), "command": command_line()}
    )
    subject = load_subject(recipe.base_model)
    with LiveMerge(recipe, subject.model) as live:
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
