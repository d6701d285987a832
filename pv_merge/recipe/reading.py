"""Reads a recipe without mergekit: the same YAML, with every key and value checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from pv_merge.artifacts.names import name_problem
from pv_merge.data.documents import YAML_BYTES, parse_yaml, read_text
from pv_merge.data.value_words import shown
from pv_merge.errors import PvMergeError, Topic, raise_all, unknown_keys
from pv_merge.recipe.control import Choice, Scope
from pv_merge.recipe.controls import controls
from pv_merge.recipe.grouping import InputSettings, Problem, settings_problems
from pv_merge.recipe.recipe import Recipe, RecipeInput
from pv_merge.recipe.varying import Number, every_value

Dtype = Literal["float32", "float16", "bfloat16", "float64"]


class Entry(BaseModel):
    """One entry of ``models``."""

    model: str
    parameters: dict[str, object] = Field(default_factory=dict)


class Document(BaseModel):
    """A whole recipe; the parameters are checked by the record of controls."""

    merge_method: Literal["preference_vector"]
    base_model: str
    models: list[Entry] = Field(min_length=1)
    parameters: dict[str, object] = Field(default_factory=dict)
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: str | None = None
    tokenizer: dict[str, object] | None = None
    chat_template: str | None = None


TOKENIZER_KEYS = ("tokenizer_source", "tokenizer", "chat_template")
"""Keys that only mergekit acts on."""

INPUT_KEYS = ("preference", "polarity", "base")
"""Keys of an input's parameters that are no controls."""


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a YAML file. Raises ``PvMergeError`` with every problem, a line each.

    Only the file itself is checked here; ``pv_merge.recipe.opening`` also looks at the folders it names.
    """
    recipe, problems = parse_recipe(Path(path))
    raise_all([problem.text for problem in problems], Topic.SYNTAX)
    assert recipe is not None
    return recipe


def parse_recipe(path: Path) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe, as far as it can be read, and each problem of its text."""
    text = read_text(path, YAML_BYTES)
    _refuse_stages(text, path)
    data = parse_yaml(text, path)
    reader = _Reader(str(path))
    reader.keys(data)
    try:
        document = Document.model_validate(data)
    except ValidationError as error:
        reader.values(error, data)
        reader.raw_controls(data)
        return None, reader.problems
    base = document.base_model
    inputs = tuple(reader.input(item) for item in document.models if item.model != base)
    said, choices = reader.shared(document.parameters)
    if not inputs:
        reader.add("names no input besides the base", Topic.SYNTAX)
        return None, reader.problems
    other = tuple(key for key in TOKENIZER_KEYS if key in data)
    recipe = Recipe(
        path, text, base, inputs, said, choices, document.dtype, document.out_dtype, other
    )
    reader.whole(recipe)
    return recipe, reader.problems


def _refuse_stages(text: str, path: Path) -> None:
    """Raise ``PvMergeError`` for a file of several recipes, which only mergekit-multi runs."""
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        count = sum(isinstance(event, yaml.DocumentStartEvent) for event in events)
    except (yaml.YAMLError, RecursionError):
        return  # told where it is read
    if count > 1:
        raise PvMergeError(
            f"{path}: holds {count} recipes, the stages of mergekit-multi, and pv-merge takes one; run "
            f"mergekit-multi {path} --intermediate-dir ./stages --out-path OUT",
            Topic.MERGEKIT,
        )


class _Reader:
    """Collects every problem of a document while its parts are read."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[Problem] = []
        self._unread: set[tuple[str, str]] = set()  # (preference, control) said, but wrong

    def add(self, text: str, topic: Topic) -> None:
        """Note a problem, once."""
        problem = Problem(f"{self.where}: {text}", topic)
        if problem not in self.problems:
            self.problems.append(problem)

    def keys(self, data: Mapping[str, object]) -> None:
        """Note keys that nobody knows, which mergekit would ignore."""
        self._unknown(data, Document.model_fields, "")
        shared = data.get("parameters")
        if isinstance(shared, dict):
            self._unknown(shared, controls(), "parameters")
        for item in _entries(data):
            label = str(item.get("model", "models"))
            self._unknown(item, Entry.model_fields, label)
            own = item.get("parameters")
            if isinstance(own, dict):
                self._unknown(own, [*INPUT_KEYS, *controls(Scope.PREFERENCE)], label)

    def _unknown(self, given: Iterable[object], known: Iterable[str], label: str) -> None:
        where = f"{self.where}: {label}" if label else self.where
        self.problems += [Problem(line, Topic.SYNTAX) for line in unknown_keys(given, known, where)]

    def values(self, error: ValidationError, data: Mapping[str, object]) -> None:
        """Note values of a wrong form, as pydantic found them."""
        for item in error.errors():
            parts = list(item["loc"])
            place = ""
            if parts[:1] == ["models"] and len(parts) > 1:
                place = f"{_label(data, parts[1])}: "
                parts = parts[2:]
            label = ".".join(str(part) for part in parts if part in _KEYS) or "models"
            if item["type"] == "missing":
                self.add(f"{place}{label} is required", Topic.SYNTAX)
            else:
                text = f"{place}{label}: {item['msg']}, got {shown(item['input'])}"
                self.add(text, Topic.SYNTAX)

    def raw_controls(self, data: Mapping[str, object]) -> None:
        """Note what is wrong with controls in a document that cannot be read as a whole."""
        shared = data.get("parameters")
        if isinstance(shared, dict):
            self.shared(shared)
        for item in _entries(data):
            own = item.get("parameters")
            if isinstance(own, dict):
                self._numbers(own, f"{item.get('model', 'models')}: ")

    def input(self, entry: Entry) -> RecipeInput:
        """Return an input; its controls as far as they are right."""
        words = {}
        for key in INPUT_KEYS:
            value = entry.parameters.get(key)
            words[key] = value if isinstance(value, str) else ""
            if not isinstance(value, str | None):
                text = f"{entry.model}: {key} must be text, got {shown(value)}"
                self.add(text, Topic.SYNTAX)
        said = self._numbers(entry.parameters, f"{entry.model}: ", words["preference"])
        return RecipeInput(entry.model, words["preference"], words["polarity"], said, words["base"])

    def shared(
        self, parameters: Mapping[str, object]
    ) -> tuple[dict[str, Number], dict[str, Choice]]:
        """Return (controls of preferences, controls of the merge) that stand at the top."""
        choices: dict[str, Choice] = {}
        for name, control in controls(Scope.MERGE).items():
            try:
                choices[name] = control.one(parameters.get(name))
            except PvMergeError as error:
                self.add(f"parameters: {error.message}", error.topic)
        return self._numbers(parameters, "parameters: "), choices

    def _numbers(
        self, parameters: Mapping[str, object], label: str, preference: str = ""
    ) -> dict[str, Number]:
        said: dict[str, Number] = {}
        for name, control in controls(Scope.PREFERENCE).items():
            try:
                value = control.number(parameters.get(name))
            except PvMergeError as error:
                self.add(f"{label}{error.message}", error.topic)
                self._unread.add((preference, name))
                value = None
            if value is not None:
                said[name] = value
        return said

    def whole(self, recipe: Recipe) -> None:
        """Note what does not fit together: names given twice, missing roles, settings that disagree."""
        names = [item.model for item in recipe.inputs]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                count = names.count(name)
                text = f"{name} is named {count} times; mergekit takes each input once"
                self.add(text, Topic.SYNTAX)
        for name in recipe.preferences:
            if line := name_problem(name):
                self.add(line, Topic.SYNTAX)
        for problem in settings_problems(_first_values(recipe)):
            name, control = problem.about or ("", "")
            if not self._unread & {(name, control), ("", control)}:
                self.add(problem.text, problem.topic)


def _first_values(recipe: Recipe) -> list[InputSettings]:
    """Return settings in which the first number stands for one that varies between weights."""

    def first(item: RecipeInput, key: str) -> float | None:
        own = item.said.get(key)
        return next(every_value(recipe.said.get(key) if own is None else own), None)

    keys = controls(Scope.PREFERENCE)
    return [
        InputSettings(
            item.model,
            item.preference or None,
            item.polarity or None,
            {key: first(item, key) for key in keys},
        )
        for item in recipe.inputs
    ]


def _entries(data: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    models = data.get("models")
    return [item for item in models if isinstance(item, dict)] if isinstance(models, list) else []


def _label(data: Mapping[str, object], index: int | str) -> str:
    models = data.get("models")
    entry = models[index] if isinstance(models, list) and isinstance(index, int) else None
    return str(entry.get("model", f"models[{index}]") if isinstance(entry, dict) else entry)


_KEYS = frozenset({*Document.model_fields, *Entry.model_fields})
