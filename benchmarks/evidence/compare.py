"""Models under the same measures: each by ``pv-merge evaluate``, and their paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.place import POLICIES, RECIPES, run, vectors
from pv_merge.artifacts.provenance import recipe_subject
from pv_merge.evaluation.journal import digest, point_key
from pv_merge.evaluation.statistics import Estimate, paired_difference


@dataclass(frozen=True)
class Compared:
    """One model: a recipe of ``benchmarks/results/recipes`` and its eta."""

    recipe: str
    etas: Mapping[str, float]
    title: str


def _two(eta: float) -> dict[str, float]:
    return {"helpful": eta, "harmless": eta}


MODELS = {
    "base": Compared("helpful-harmless", _two(0), "base"),
    "full": Compared("helpful-harmless", _two(1), "both vectors, η = 1"),
    "positive": Compared("positive", _two(1), "positive halves only, η = 1"),
    "positive-twice": Compared("positive", _two(2), "positive halves only, η = 2"),
    "soup": Compared("positive", _two(0.5), "average of the positive policies (Reward Soup)"),
    "safe-first": Compared("safe-first", {"safe-first": 1}, "DPO on safe-first labels"),
    "three": Compared(
        "helpful-harmless-polite", {**_two(1), "polite": 1}, "three vectors (+ polite), η = 1"
    ),
}


def available(names: Sequence[str]) -> list[str]:
    """Return the models whose policies are there: safe-first may not be trained yet."""
    there = (POLICIES / "safe-first/positive").is_dir()
    return [name for name in names if name != "safe-first" or there]


def evaluate(name: str, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Return what ``pv-merge evaluate`` found of one of ``MODELS``, from ``folder`` if it is there."""
    model = MODELS[name]
    return evaluate_at(model.recipe, model.etas, folder / f"{name}.json", options)


def evaluate_at(
    recipe: str, etas: Mapping[str, float], path: Path, options: Sequence[str]
) -> dict[str, Any]:
    """Return what ``pv-merge evaluate`` found of a recipe at some eta."""
    if not _is_of(recipe, path):
        made = {"helpful-harmless": ("helpful", "harmless"), "helpful-harmless-polite": ("helpful", "harmless", "politeness")}  # fmt: skip
        vectors(*made.get(recipe, ()))
        words = [word for name, eta in etas.items() for word in ("--eta", f"{name}={eta:g}")]
        run("pv-merge", "evaluate", RECIPES / f"{recipe}.yml", *words, *options, "-o", path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _is_of(recipe: str, path: Path) -> bool:
    """Return whether a result is there and of these very weights; else the product says what changed."""
    if not path.exists():
        return False
    header = json.loads(path.with_suffix(".jsonl").open(encoding="utf-8").readline())
    return bool(
        header["hash"]
        == digest(recipe_subject((RECIPES / f"{recipe}.yml").read_text(encoding="utf-8")))
    )


def items(result: Path, measures: Sequence[Any], base: bool = False) -> dict[str, list[float]]:
    """Return every figure item by item, of a model or of its base, from an evaluation's journal."""
    point = json.loads(result.read_text(encoding="utf-8"))["eta"]
    wanted = point_key(dict.fromkeys(point, 0.0) if base else point)
    found: dict[str, list[float]] = {}
    records = {}
    for line in result.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["kind"] == "record" and point_key(entry["point"]) == wanted:
            records[entry["measure"]] = entry["record"]
    for measure in measures:
        if measure.name in records:
            found |= measure.items(records[measure.name], None)
    return found


def difference(
    after: Mapping[str, list[float]],
    before: Mapping[str, list[float]],
    figure: str,
    measures: Sequence[Any],
) -> Estimate:
    """Return the mean change of a figure, item by item, resampling prompts as the product does."""
    groups = next(
        (getattr(m, "groups", None) for m in measures if figure in m.labels()), None
    )  # fmt: skip
    return paired_difference(after[figure], before[figure], groups)


def comparison(
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    figures: Sequence[str],
    folder: Path,
    options: Sequence[str],
    measures: Sequence[Any],
) -> dict[str, Any]:
    """Return the figures of each model, and what differs between the (after, before) of ``pairs``.

    The base is read from the first other model's journal if it is not evaluated itself.
    """
    results = {name: evaluate(name, folder, options) for name in names}
    values = {name: items(folder / f"{name}.json", measures) for name in names}
    first = names[0]
    models = {
        name: {"title": MODELS[name].title, "recipe": r["recipe"], "eta": r["eta"], "figures": r["figures"], "command": r["command"]}
        for name, r in results.items()
    }  # fmt: skip
    if "base" not in names:
        values["base"] = items(folder / f"{first}.json", measures, base=True)
        found = results[first]["base_figures"]
        models = {"base": {"title": MODELS["base"].title, "figures": found}, **models}
    changes = [
        {
            "after": after,
            "before": before,
            "figure": figure,
            "change": difference(values[after], values[before], figure, measures).to_dict(),
        }
        for after, before in pairs
        if after in values and before in values
        for figure in figures
    ]
    return {
        "models": models,
        "differences": changes,
        "labels": results[first]["labels"],
        "measures": {name: _short(what) for name, what in results[first]["measures"].items()},
        "versions": results[first]["versions"],
    }


def _short(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a measure depends on, without the list of a phrase matcher's phrases."""
    return {key: value for key, value in identity.items() if key != "classifier"}
