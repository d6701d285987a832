"""Measures taken of a recipe at any eta, each once: what is in the journal is not taken again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pv_merge.artifacts.provenance import command_line, recipe_subject, versions
from pv_merge.errors import PvMergeError, Topic
from pv_merge.evaluation.journal import Journal, Point, open_journal, point_key
from pv_merge.evaluation.measure import Advance, Measure
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.live_eta import LiveEta
from pv_merge.live.subject import Subject, load_subject
from pv_merge.recipe.opened import OpenRecipe


class Bench:
    """A live model, its measures, and the journal of what they gave."""

    def __init__(
        self, subject: Subject, live: LiveEta, measures: Sequence[Measure], journal: Journal
    ) -> None:
        names = [measure.name for measure in measures]
        for name in names:
            if names.count(name) > 1:
                raise PvMergeError(
                    f"{name}: two measures have this name; call one of them otherwise"
                )
        self.subject, self.live, self.measures, self.journal = (
            subject,
            live,
            list(measures),
            journal,
        )
        self._now: str | None = None
        self.taken = 0
        """Number of records that were measured, not read."""
        for measure in self.measures:
            journal.declare(measure.name, measure.identity())

    def missing(self, points: Sequence[Point], measures: Sequence[Measure] | None = None) -> int:
        """Return the units of work that are left."""
        chosen = self.measures if measures is None else measures
        return sum(
            measure.size
            for point in points
            for measure in chosen
            if self.journal.get(point, measure.name) is None
        )

    def take(
        self,
        point: Point,
        base: Point,
        advance: Advance = lambda count: None,
        measures: Sequence[Measure] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return every measure's record at ``point``, by name, measuring what is missing."""
        found = {}
        for measure in self.measures if measures is None else measures:
            record = self.journal.get(point, measure.name)
            if record is None:
                record = self._measure(measure, point, base, advance)
            found[measure.name] = record
        return found

    def estimates(self, point: Point, base: Point) -> dict[str, Estimate]:
        """Return every figure at a point that has been measured."""
        figures: dict[str, Estimate] = {}
        for measure in self.measures:
            record = self.journal.get(point, measure.name)
            if record is not None:
                figures |= measure.estimates(record, self.journal.get(base, measure.name))
        return figures

    def items(self, point: Point, base: Point) -> dict[str, list[float]]:
        """Return every figure's values, item by item, at a point that has been measured."""
        values: dict[str, list[float]] = {}
        for measure in self.measures:
            record = self.journal.get(point, measure.name)
            if record is not None:
                values |= measure.items(record, self.journal.get(base, measure.name))
        return values

    def _measure(
        self, measure: Measure, point: Point, base: Point, advance: Advance
    ) -> dict[str, Any]:
        self._set(point)
        start = time.perf_counter()
        parts = self.journal.parts(point, measure.name)
        record = measure.measure(self.subject, parts, advance)
        seconds = time.perf_counter() - start
        reference = (
            record if point_key(point) == point_key(base) else self.journal.get(base, measure.name)
        )
        estimates = measure.estimates(record, reference)
        for name, found in estimates.items():
            if not math.isfinite(found.value):
                where = ", ".join(f"{key} {value}" for key, value in point.items()) or "this model"
                raise PvMergeError(
                    f"{name} is {found.value} at {where}; is eta too large, or do the weights hold "
                    "values that are not finite?",
                    Topic.FINITE,
                )
        figures = {name: found.to_dict() for name, found in estimates.items()}
        self.journal.put(point, measure.name, record, seconds, figures)
        self.taken += 1
        return record

    def _set(self, point: Point) -> None:
        key = point_key(point)
        if key == self._now:
            return
        self._now = None
        if all(value == 0 for value in point.values()):
            self.live.reset()
        else:
            self.live.set({name: value for name, value in point.items() if value is not None})
        self._now = key


@contextmanager
def open_bench(opened: OpenRecipe, measures: Sequence[Measure], journal: Path) -> Iterator[Bench]:
    """Yield a bench for a recipe; the live model's weights are the base's again afterwards.

    Raises ``PvMergeError`` where another process writes the journal.
    """
    from pv_merge.live.weights import LiveMerge

    header = {"versions": versions(), "command": command_line()}
    with open_journal(journal, recipe_subject(opened.recipe.text), header) as record:
        subject = load_subject(opened.live_base)
        with LiveMerge(opened, subject.model) as live:
            yield Bench(subject, live, measures, record)
