"""A merge with its card: what ``pv-merge run`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError
from pv_merge.hub.card.card import write_card
from pv_merge.merging.loss import MergeReport
from pv_merge.merging.run import Advance, run, run_grid
from pv_merge.recipe.checks.finding import warning
from pv_merge.recipe.grid import checked_axes, points
from pv_merge.recipe.opening import Found, open_recipe


def merge(
    recipe: str | Path,
    output: str | Path,
    *,
    report: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> MergeReport:
    """Merge a recipe into the new folder ``output``; return the loss report, empty without one.

    The weights are mergekit's, bit for bit, and the folder holds the card that a push would write.
    ``threads`` is by default one for each core; ``device`` (``cpu``, ``cuda``, ``cuda:N``) does not
    change the bytes. ``found`` is told the check's warnings and notes, ``advance`` (weights done,
    weights in all).

    Raises ``PvMergeError`` with every error of the check; the folder appears whole or not at all.

    >>> import pv_merge
    >>> report = pv_merge.merge("recipe.yml", "merged")
    >>> round(report["preferences"]["polite"]["share"], 3)  # of eta·phi reached the model
    1.0
    """
    settings: dict[str, Any] = {"report": report, "threads": threads, "device": device}
    return run(recipe, output, **settings, found=found, advance=advance, finish=_card(found))


def merge_grid(
    recipe: str | Path,
    output: str | Path,
    eta: Mapping[str, Sequence[float]],
    *,
    report: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    found: Found = lambda findings: None,
    advance: Advance = lambda done, total: None,
) -> dict[str, MergeReport]:
    """Merge a recipe at every point of a grid of eta in one read; return the reports by folder.

    Each point becomes a model in a folder of its own, named after its etas, with the same bytes as
    a merge of its own. The other arguments are those of ``merge``.

    >>> import pv_merge
    >>> sorted(pv_merge.merge_grid("recipe.yml", "grid", {"polite": [0.5, 1]}))
    ['polite=0.5', 'polite=1']
    """
    opened = open_recipe(recipe, found)
    grid = points(checked_axes(eta, opened.recipe.preferences), {})
    settings: dict[str, Any] = {"report": report, "threads": threads, "device": device}
    return run_grid(opened, output, grid, **settings, advance=advance, finish=_card(found))


def _card(found: Found) -> Callable[[Path, str], None]:
    """Return what writes a card; a merge is not lost because a manifest cannot be read."""

    def write(folder: Path, name: str) -> None:
        try:
            write_card(folder, name)
        except PvMergeError as error:
            found([warning(f"no card: {error.message}", error.topic)])

    return write
