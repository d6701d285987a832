"""Measured results for a card, from the JSON of ``pv-merge evaluate`` and ``sweep``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from pv_merge.data.documents import read_object, validated
from pv_merge.errors import PvMergeError
from pv_merge.hub.facts import Facts
from pv_merge.recipe.reading import parse_recipe
from pv_merge.recipe.recipe import Recipe

LARGEST = 16 << 20
MOST_NEAR = 200
"""Files that are looked at where results may lie near."""

Etas = dict[str, float | None]


class Figure(BaseModel):
    """A mean with its 95 % interval, over ``n`` values."""

    value: float
    low: float
    high: float
    n: int


Figures = dict[str, Figure]


class MeasuredPoint(BaseModel):
    """One point of a sweep."""

    eta: Etas
    figures: Figures


class Evaluation(BaseModel):
    """One file of results; after ``read_evaluations``, as far as it is of this model."""

    labels: dict[str, str]
    figures: Figures = Field(default_factory=dict)
    """Of the model. Empty for a vector, which has no eta of its own."""
    base_figures: Figures = Field(default_factory=dict)
    measures: dict[str, dict[str, Any]] = Field(default_factory=dict)
    command: str | None = None
    points: list[MeasuredPoint] = Field(default_factory=list)
    recipe: str | None = None
    """The recipe that was applied in memory; None where this folder's model was loaded."""
    model: str | None = None
    eta: Etas | None = None
    base: Any = None
    """The base's name; in a sweep, its figures."""

    @property
    def headlines(self) -> list[str]:
        """The first figure of each measure; the others have a dot in their name."""
        return [name for name in self.labels if "." not in name]


def found_in(folder: Path) -> list[Path]:
    """Return the result files that lie in a folder, by their content."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.name in ("tokenizer.json", "vocab.json") or not path.is_file():
            continue
        if path.stat().st_size < LARGEST:
            try:
                data = read_object(path)
            except PvMergeError:
                continue
            if "labels" in data and ({"figures", "points"} & set(data)):
                found.append(path)
    return found


def found_near(folder: Path, facts: Facts, known: Sequence[Path]) -> list[Path]:
    """Return result files of this very model that lie near it and are not in ``known``.

    Near is beside the folder, and in ``./runs``. They must name the recipe that made the model, or
    the model itself.
    """
    seen = {path.resolve() for path in known}
    places = dict.fromkeys([folder.parent, *_subfolders(folder.parent), *_subfolders(Path("runs"))])
    found: list[Path] = []
    for place in list(places)[:MOST_NEAR]:
        if place.resolve() == folder.resolve():
            continue
        for path in found_in(place)[:MOST_NEAR]:
            try:
                fits = path.resolve() not in seen and _surely_of(read_evaluation(path), facts)
            except PvMergeError:
                continue
            if fits:
                found.append(path)
                seen.add(path.resolve())
    return found


def _subfolders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield folder
        yield from sorted(path for path in folder.iterdir() if path.is_dir())[:MOST_NEAR]


def _surely_of(evaluation: Evaluation, facts: Facts) -> bool:
    """Return whether results are of this model beyond doubt."""
    if isinstance(_fitting(evaluation, facts), str):
        return False
    if evaluation.recipe is None:
        return evaluation.model is not None and _is_folder(evaluation.model, facts.folder)
    other = _recipe_at(evaluation.recipe)
    if facts.recipe is not None and other is not None:
        return same_inputs(other, facts.recipe)
    names = [item.model for item in other.inputs] if other else []
    return any(_is_folder(name, facts.folder) for name in names)


def read_evaluation(path: Path) -> Evaluation:
    """Return a file of results. Raises ``PvMergeError`` where it is none."""
    data = read_object(path)
    if "labels" not in data:
        raise PvMergeError(
            f"{path}: holds no results; expected the JSON of pv-merge evaluate or sweep"
        )
    found = validated(Evaluation, data, path)
    if found.points and isinstance(found.base, dict) and not found.base_figures:
        base = {name: validated(Figure, item, path) for name, item in found.base.items()}
        found = found.model_copy(update={"base_figures": base})
    return found


def read_evaluations(paths: Sequence[Path], facts: Facts) -> tuple[list[Evaluation], list[str]]:
    """Return the results that are of this model, and a line for each file that is not."""
    found, left_out = [], []
    for path in paths:
        result = _fitting(read_evaluation(path), facts)
        if isinstance(result, str):
            left_out.append(f"{path}: {result}; left out of the card")
        else:
            found.append(result)
    return found, left_out


def _fitting(said: Evaluation, facts: Facts) -> Evaluation | str:
    """Return the results as far as they are of this model, or why they are not."""
    points, figures = said.points, said.figures
    if facts.kind == "merge" and said.eta is not None and said.eta != facts.etas:
        return f"is of eta {shown_etas(said.eta)}, the model has {shown_etas(facts.etas)}"
    if facts.kind == "merge" and said.recipe is not None and facts.recipe is not None:
        other = _recipe_at(said.recipe)
        if other is not None and not same_inputs(other, facts.recipe):
            return f"is of {said.recipe}, a recipe with other inputs"
    if facts.kind == "merge" and points:
        own = [point for point in points if point.eta == facts.etas]
        if not own:
            return f"none of its points has the model's eta {shown_etas(facts.etas)}"
        figures = own[0].figures
    by_folder = said.model is not None and _names(said.model, facts.folder)
    if facts.kind == "merge" and said.recipe is None and not points and not by_folder:
        return f"is of the model {said.model}, not of this folder"
    if facts.kind in ("policy", "base") and not by_folder:
        return f"is of {said.model or said.recipe}, not of this folder"
    if facts.kind == "vector":
        if not points and said.eta is not None:
            points = [MeasuredPoint(eta=said.eta, figures=figures)]
        figures = {}
    return said.model_copy(update={"figures": figures, "points": points})


def same_inputs(one: Recipe, other: Recipe) -> bool:
    """Return whether two recipes name one base and the same inputs, whatever their eta."""

    def inputs(recipe: Recipe) -> list[tuple[str, str, str]]:
        found = [(item.model, item.preference, item.polarity) for item in recipe.inputs]
        return sorted(found)

    return one.base_model == other.base_model and inputs(one) == inputs(other)


def _recipe_at(path: str) -> Recipe | None:
    """Return the recipe that results name, where it is here and can be read."""
    try:
        return parse_recipe(Path(path))[0] if Path(path).is_file() else None
    except (PvMergeError, OSError):
        return None


def _names(model: str, folder: Path) -> bool:
    return _is_folder(model, folder) or Path(model).name == folder.name


def _is_folder(model: str, folder: Path) -> bool:
    return Path(model).resolve() == folder.resolve()


def shown_etas(etas: Mapping[str, float | None]) -> str:
    """Return etas as a message shows them."""
    parts = [f"{name} {'by layer' if v is None else f'{v:g}'}" for name, v in etas.items()]
    return ", ".join(parts)
