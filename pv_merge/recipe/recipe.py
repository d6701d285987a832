"""A merge recipe, read without mergekit: the same YAML, with every key checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pv_merge.artifacts.names import name_problem
from pv_merge.data.documents import YAML_BYTES, parse_yaml, read_text
from pv_merge.errors import raise_all, unknown_keys
from pv_merge.recipe.grouping import InputSettings, settings_problems
from pv_merge.recipe.schema import (
    Conditional,
    Document,
    Input,
    InputParameters,
    SharedParameters,
)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``inputs`` are in the order of the file, without the base."""

    path: Path
    text: str
    base_model: str
    inputs: tuple[Input, ...]
    parameters: SharedParameters
    dtype: str | None = None
    out_dtype: str | None = None
    other: dict[str, Any] = field(default_factory=dict)
    """Top-level keys that only mergekit acts on, such as ``tokenizer``."""

    @property
    def preferences(self) -> list[str]:
        """Names of the preferences, in the order in which they are first named."""
        return list(dict.fromkeys(str(item.parameters.preference) for item in self.inputs))

    @property
    def etas(self) -> dict[str, float | None]:
        """Each preference's eta, or None where it differs between weights."""
        found: dict[str, float | None] = {}
        for name in self.preferences:
            said = self.setting(name, "eta")
            found[name] = float(said) if isinstance(said, int | float) else None
        return found

    def setting(self, preference: str, key: str) -> Any:
        """Return the first value that an input of ``preference`` has for ``key``, else the shared."""
        for item in self.inputs:
            value = getattr(item.parameters, key)
            if item.parameters.preference == preference and value is not None:
                return value
        return getattr(self.parameters, key)

    def text_with(self, etas: Mapping[str, float]) -> str:
        """Return the recipe's YAML with other etas, and with its first comment lines kept."""
        if not etas:
            return self.text
        data = parse_yaml(self.text, self.path)
        for item in data["models"]:
            said = item.get("parameters") or {}
            if said.get("preference") in etas:
                said["eta"] = float(etas[said["preference"]])
        lines = self.text.splitlines()
        comments = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
        body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        return "".join(f"{line}\n" for line in comments) + body

    def settings_for(self, name: str, t: float) -> list[InputSettings]:
        """Return every input's settings for the weight ``name``, at depth ``t`` (0 first, 1 last)."""

        def number(item: Input, key: str) -> float | None:
            value = resolve(getattr(item.parameters, key), name, t)
            return resolve(getattr(self.parameters, key), name, t) if value is None else value

        return [
            InputSettings(
                item.model,
                item.parameters.preference,
                item.parameters.polarity,
                number(item, "eta"),
                number(item, "density"),
                number(item, "max_relative_norm"),
            )
            for item in self.inputs
        ]


def resolve(setting: Any, name: str, t: float) -> float | None:
    """Return a setting's value for one weight, as mergekit evaluates it.

    A list of numbers is a gradient: linear over ``t``, from the first layer (0) to the last (1).
    Of conditional values the first whose filter is part of the name counts.
    """
    if setting is None:
        return None
    if isinstance(setting, Conditional):
        setting = [setting]
    if isinstance(setting, int | float | str):
        return float(setting)
    if setting and isinstance(setting[0], Conditional):
        for item in setting:
            if item.filter in (None, "*") or item.filter in name:
                return resolve(item.value, name, t)
        return None
    if not setting:
        return None
    scaled = t * (len(setting) - 1)
    low = int(scaled)
    high = min(len(setting) - 1, low + 1)
    part = scaled - low
    return float((1 - part) * setting[low] + part * setting[high])


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a YAML file. Raises ``PvMergeError`` with every problem, a line each.

    Only the file itself is checked here; ``pv_merge.recipe.checks.check`` also looks at the folders it names.
    """
    recipe, problems = parse_recipe(Path(path))
    raise_all(problems)
    assert recipe is not None
    return recipe


def parse_recipe(path: Path) -> tuple[Recipe | None, list[str]]:
    """Return the recipe, as far as it can be read, and a line for each problem of its text."""
    text = read_text(path, YAML_BYTES)
    data = parse_yaml(text, path)
    problems = _key_problems(data, str(path))
    document = None
    try:
        document = Document.model_validate(data)
    except ValidationError as error:
        problems += _value_problems(error, data, str(path))
    if document is None:
        return None, problems
    base = document.base_model
    inputs = tuple(item for item in document.models if item.model != base)
    if not inputs:
        return None, [*problems, f"{path}: names no input besides the base"]
    other: dict[str, Any] = {
        key: data[key] for key in ("tokenizer_source", "tokenizer", "chat_template") if key in data
    }
    recipe = Recipe(
        path, text, base, inputs, document.parameters, document.dtype, document.out_dtype, other
    )
    return recipe, problems + _input_problems(recipe)


def _key_problems(data: dict[str, Any], where: str) -> list[str]:
    problems = unknown_keys(data, Document.model_fields, where)
    if isinstance(data.get("parameters"), dict):
        problems += unknown_keys(
            data["parameters"], SharedParameters.model_fields, f"{where}: parameters"
        )
    for item in data.get("models") or []:
        if not isinstance(item, dict):
            continue
        label = f"{where}: {item.get('model', 'models')}"
        problems += unknown_keys(item, Input.model_fields, label)
        if isinstance(item.get("parameters"), dict):
            problems += unknown_keys(item["parameters"], InputParameters.model_fields, label)
    return problems


def _value_problems(error: ValidationError, data: dict[str, Any], where: str) -> list[str]:
    problems: dict[str, None] = {}
    for item in error.errors():
        place, parts = where, list(item["loc"])
        if parts and parts[0] == "models" and len(parts) > 1 and isinstance(parts[1], int):
            entry = data["models"][parts[1]]
            place = f"{where}: {entry.get('model', f'models[{parts[1]}]') if isinstance(entry, dict) else entry}"
            parts = parts[2:]
        keys = [str(part) for part in parts if part in _KEYS]
        label = ".".join(keys) or str(parts[-1] if parts else "recipe")
        if item["type"] == "missing":
            problems[f"{place}: {label} is required"] = None
        elif len(parts) > len(keys):
            problems[
                f"{place}: {label} must be a number, a list of numbers, or filters with values"
            ] = None
        else:
            problems[f"{place}: {label}: {item['msg']}, got {item['input']!r}"] = None
    return list(problems)


_KEYS = frozenset(
    {*Document.model_fields, *SharedParameters.model_fields, *InputParameters.model_fields}
)


def _input_problems(recipe: Recipe) -> list[str]:
    """Check what the text says of the inputs: roles, etas and their agreement."""
    problems = _duplicates(recipe.inputs, str(recipe.path))
    names = dict.fromkeys(item.parameters.preference for item in recipe.inputs)
    problems += [
        f"{recipe.path}: {line}" for name in names if name and (line := name_problem(name))
    ]
    plain = [
        InputSettings(
            item.model,
            item.parameters.preference,
            item.parameters.polarity,
            _stand_in(item.parameters.eta, recipe.parameters.eta),
            _stand_in(item.parameters.density, recipe.parameters.density),
            _stand_in(item.parameters.max_relative_norm, recipe.parameters.max_relative_norm),
        )
        for item in recipe.inputs
    ]
    problems += [f"{recipe.path}: {line}" for line in settings_problems(plain)]
    for item in plain:
        if item.density is not None and not 0 < item.density <= 1:
            problems.append(
                f"{recipe.path}: {item.model}: density must be in (0, 1], got {item.density:g}"
            )
        if item.max_relative_norm is not None and item.max_relative_norm <= 0:
            problems.append(f"{recipe.path}: {item.model}: max_relative_norm must be positive")
        if item.eta is not None and not math.isfinite(item.eta):
            problems.append(f"{recipe.path}: {item.model}: eta must be finite, got {item.eta}")
    return problems


def _stand_in(own: Any, shared: Any) -> float | None:
    """Return a number that stands for a setting when inputs are compared: its first value."""
    setting = shared if own is None else own
    if isinstance(setting, list):
        setting = setting[0] if setting else None
    if isinstance(setting, Conditional):
        setting = setting.value[0] if isinstance(setting.value, list) else setting.value
    try:
        return None if setting is None else float(setting)
    except ValueError:
        return None


def _duplicates(inputs: Sequence[Input], where: str) -> list[str]:
    names = [item.model for item in inputs]
    return [
        f"{where}: {name} is named {names.count(name)} times; mergekit takes each input once"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
