"""One model, or one recipe applied in memory, under any measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.provenance import command_line, model_hash, versions
from pv_merge.data.documents import parse_yaml
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.evaluation.bench import Bench, open_bench
from pv_merge.evaluation.journal import Journal, Point, open_journal, point_key
from pv_merge.evaluation.measure import SILENT, Measure, Progress
from pv_merge.evaluation.statistics import Estimate, change
from pv_merge.live.live_eta import StandingStill
from pv_merge.live.subject import load_subject
from pv_merge.recipe.grid import base_point
from pv_merge.recipe.opening import open_recipe


@dataclass(frozen=True)
class Evaluation:
    """What measures say of one model."""

    subject: dict[str, Any]
    """``recipe``, ``eta`` and ``base``, or ``model`` and ``base``."""
    figures: dict[str, Estimate]
    base_figures: dict[str, Estimate]
    """The same of the base, where it was measured."""
    changes: dict[str, Estimate]
    """What differs from the base, item by item, where both were measured."""
    labels: dict[str, str]
    """What each figure is, with its unit."""
    measures: dict[str, Any]
    """What each measure depends on: hashes of data, and settings."""
    versions: dict[str, str] = field(default_factory=versions)
    command: str = field(default_factory=command_line)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **self.subject,
            "figures": {name: self.figures[name].to_dict() for name in self.labels},
            "base_figures": {name: figure.to_dict() for name, figure in self.base_figures.items()},
            "changes": {name: figure.to_dict() for name, figure in self.changes.items()},
            "labels": self.labels,
            "measures": self.measures,
            "versions": self.versions,
            "command": self.command,
            "seed": 0,
        }


@dataclass(frozen=True)
class _Taken:
    figures: Mapping[str, Estimate]
    base: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]


def evaluate(
    model: str | Path,
    output: str | Path,
    measures: Sequence[Measure],
    *,
    etas: Mapping[str, float] | None = None,
    base: str | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure a model folder, a Hub name, or a recipe (``.yml``) applied in memory.

    ``output`` is a ``.json`` file for the results; in the ``.jsonl`` beside it is kept what is
    measured as it comes, so that a killed evaluation goes on where it was. ``etas`` replace those
    of a recipe; ``base`` is what a model's reward margin is measured against, by default the base of
    the recipe that a merged folder was made by. ``progress`` hears of the work. Raises ``PvMergeError`` where they do not apply,
    or a model cannot be loaded.

    >>> import pv_merge
    >>> pairs = pv_merge.measure("pairs", "polite=pairs.jsonl")
    >>> found = pv_merge.evaluate("recipe.yml", "result.json", [pairs], etas={"polite": 0.5})
    >>> found.figures["polite"].n, found.subject["eta"]["polite"]
    (8, 0.5)
    """
    place, target = Path(model), Path(output)
    is_recipe = place.suffix in (".yml", ".yaml")
    if etas and not is_recipe:
        raise PvMergeError(f"--eta {next(iter(etas))}: {model} is no recipe, so it has no eta")
    if base and is_recipe:
        raise PvMergeError(f"--base {base}: a recipe names its base itself")
    if target.suffix == ".jsonl":
        raise PvMergeError(
            f"-o {output}: expected a .json file; the .jsonl beside it keeps the parts"
        )
    if not measures:
        raise PvMergeError(
            "nothing to measure: give --pairs, --answers, --refusal, --reward-model, --cost-model or --capability"
        )
    journal = target.with_suffix(".jsonl")
    if is_recipe:
        result = _recipe(place, etas or {}, measures, journal, progress)
    else:
        result = _model(str(model), base or merged_from(place), measures, journal, progress)
    write_json(target, result.to_dict())
    return result


def merged_from(folder: Path) -> str | None:
    """Return the base that a merged folder's own recipe names, if it lies here."""
    recipe = folder / "mergekit_config.yml"
    if not recipe.is_file():
        return None
    data = parse_yaml(recipe.read_text(encoding="utf-8"), recipe)
    base = data.get("base_model") if isinstance(data, dict) else None
    return base if isinstance(base, str) and Path(base).is_dir() else None


def _recipe(
    path: Path,
    etas: Mapping[str, float],
    measures: Sequence[Measure],
    journal: Path,
    progress: Progress,
) -> Evaluation:
    opened = open_recipe(path)
    recipe = opened.recipe
    for name, value in etas.items():
        if name not in recipe.preferences:
            hint = did_you_mean(name, recipe.preferences)
            raise PvMergeError(f"--eta {name}: the recipe has no preference {name!r}{hint}")
        if not math.isfinite(value):
            raise PvMergeError(f"--eta {name}={value}: expected a finite number")
    point: dict[str, float | None] = {**recipe.etas, **etas}
    base = base_point(recipe.etas)
    with open_bench(opened, measures, journal) as bench:
        compared = [measure for measure in measures if measure.needs_base]
        progress.started(bench.missing([base], compared) + bench.missing([point]))
        bench.take(base, base, progress.advance, compared)
        bench.take(point, base, progress.advance)
        taken = _read(bench, point, base)
    said = {"recipe": str(path), "eta": point, "base": recipe.base_model}
    return _evaluation(said, measures, taken)


def _model(
    name: str,
    base_name: str | None,
    measures: Sequence[Measure],
    journal: Path,
    progress: Progress,
) -> Evaluation:
    header = {"versions": versions(), "command": command_line()}
    with open_journal(journal, {"model": model_hash(name)}, header) as record:
        taken = _take(name, base_name, measures, record, progress)
    return _evaluation({"model": name, "base": base_name}, measures, taken)


def _take(
    name: str,
    base_name: str | None,
    measures: Sequence[Measure],
    record: Journal,
    progress: Progress,
) -> _Taken:
    """Measure a model, and its base where there is one."""
    point: Point = {}
    base: Point = {f"base {model_hash(base_name)}": 0.0} if base_name else {}
    compared = [measure for measure in measures if measure.needs_base] if base_name else []
    if base_name and any(record.get(base, measure.name) is None for measure in compared):
        bench = Bench(load_subject(base_name), StandingStill(), compared, record)
        progress.started(bench.missing([base]))
        bench.take(base, base, progress.advance)
        del bench
    bench = Bench(load_subject(name, base_name), StandingStill(), measures, record)
    progress.started(bench.missing([point]))
    bench.take(point, base, progress.advance)
    # Without a base there is nothing to compare with; a model is not its own reference.
    return _read(bench, point, base if base_name else {"no base": 0.0})


def _read(bench: Bench, point: Point, base: Point) -> _Taken:
    figures, reference = (bench.estimates(at, base) for at in (point, base))
    mine, other = bench.items(point, base), bench.items(base, base)
    groups = {name: getattr(m, "groups", None) for m in bench.measures for name in m.labels()}
    changes: dict[str, Estimate] = {}
    for name in mine if point_key(point) != point_key(base) else ():
        if (found := change(mine[name], other.get(name), groups.get(name))) is not None:
            changes[name] = found
    return _Taken(figures, reference, changes)


def _evaluation(
    subject: dict[str, Any],
    measures: Sequence[Measure],
    taken: _Taken,
) -> Evaluation:
    labels: dict[str, str] = {}
    for measure in measures:
        labels |= {k: v for k, v in measure.labels().items() if k in taken.figures}
    figures, reference, changes = (
        {name: found[name] for name in labels if name in found}
        for found in (taken.figures, taken.base, taken.changes)
    )
    return Evaluation(
        subject,
        figures,
        reference,
        changes,
        labels,
        {measure.name: measure.identity() for measure in measures},
    )
