"""One model, or one recipe applied in memory, under any measures; the results as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pv_merge.artifacts.provenance import command_line, model_hash, versions
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.evaluation.bench import Bench
from pv_merge.evaluation.journal import Journal, Point
from pv_merge.evaluation.measure import Advance, Measure
from pv_merge.evaluation.session import open_bench
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.subject import load_subject
from pv_merge.recipe.grid import base_point

Started = Callable[[int], None]


class Still:
    """Stands in for a live merge where the model stays as it is."""

    def set(self, etas: Mapping[str, float]) -> None:
        """Do nothing."""

    def restore(self) -> None:
        """Do nothing."""


def evaluate_recipe(
    path: Path,
    overrides: Sequence[str],
    measures: Sequence[Measure],
    journal: Path,
    started: Started,
    advance: Advance,
) -> dict[str, Any]:
    """Return the results of a recipe at its own eta, or at those of ``NAME=NUMBER`` overrides."""
    from pv_merge.recipe.opening import open_recipe

    opened = open_recipe(path)
    recipe = opened.recipe
    point: dict[str, float | None] = {**recipe.etas, **read_etas(overrides, recipe.preferences)}
    base = base_point(recipe.etas)
    with open_bench(opened, measures, journal) as bench:
        compared = [measure for measure in measures if measure.needs_base]
        started(bench.missing([base], compared) + bench.missing([point]))
        bench.take(base, base, advance, compared)
        bench.take(point, base, advance)
        figures, reference = bench.estimates(point, base), bench.estimates(base, base)
    return {"recipe": str(path), "eta": point, "base": recipe.base_model} | _result(
        measures, figures, reference
    )


def evaluate_model(
    name: str,
    base_name: str | None,
    measures: Sequence[Measure],
    journal: Path,
    started: Started,
    advance: Advance,
) -> dict[str, Any]:
    """Return the results of a model folder or Hub name; ``base_name`` gives the reward margin."""
    header = {"versions": versions(), "command": command_line()}
    record = Journal(journal, {"model": model_hash(name)}, header)
    point: Point = {}
    base: Point = {f"base {model_hash(base_name)}": 0.0} if base_name else {}
    compared = [measure for measure in measures if measure.needs_base] if base_name else []
    if base_name and any(record.get(base, measure.name) is None for measure in compared):
        bench = Bench(load_subject(base_name), Still(), compared, record)
        started(bench.missing([base]))
        bench.take(base, base, advance)
        del bench
    bench = Bench(load_subject(name, base_name), Still(), measures, record)
    started(bench.missing([point]))
    bench.take(point, base, advance)
    # Without a base there is nothing to compare with; a model is not its own reference.
    nothing: Point = {"no base": 0.0}
    figures = bench.estimates(point, base if base_name else nothing)
    reference = bench.estimates(base, base) if base_name else {}
    return {"model": name, "base": base_name} | _result(measures, figures, reference)


def read_etas(overrides: Sequence[str], preferences: Sequence[str]) -> dict[str, float]:
    """Return the etas of ``NAME=NUMBER`` options."""
    found = {}
    for text in overrides:
        name, _, value = text.partition("=")
        if name not in preferences:
            hint = did_you_mean(name, preferences)
            raise PvMergeError(f"--eta {text}: the recipe has no preference {name!r}{hint}")
        try:
            found[name] = float(value)
        except ValueError:
            raise PvMergeError(f"--eta {text}: expected NAME=NUMBER, such as polite=0.5") from None
    return found


def _result(
    measures: Sequence[Measure], figures: dict[str, Estimate], reference: dict[str, Estimate]
) -> dict[str, Any]:
    labels: dict[str, str] = {}
    for measure in measures:
        labels |= {k: v for k, v in measure.labels().items() if k in figures}
    return {
        "figures": {name: figures[name].to_dict() for name in labels},
        "base_figures": {name: reference[name].to_dict() for name in labels if name in reference},
        "labels": labels,
        "measures": {measure.name: measure.identity() for measure in measures},
        "versions": versions(),
        "command": command_line(),
        "seed": 0,
    }
