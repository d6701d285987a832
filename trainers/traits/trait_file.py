"""The trait file as YAML: read, checked, all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pv_merge.asking.settings import ModelSettings
from pv_merge.data.documents import read_yaml
from pv_merge.data.settings import StrictSettings
from pv_merge.errors import PvMergeError, raise_all, unknown_keys
from trainers.traits.protected import protected_problem
from trainers.traits.trait import (
    JudgeSettings,
    PromptSettings,
    TrainSettings,
    TraitSettings,
)


def read_trait(path: str | Path, prompts_from: str | None = None) -> TraitSettings:
    """Return the checked trait of a YAML file; ``prompts_from`` replaces its source of prompts.

    Raises ``PvMergeError`` with every problem, a line each.
    """
    data = read_yaml(path)
    if prompts_from is not None:
        data["prompts"] = prompt_source(prompts_from)
    problems = _unknown(data, str(path))
    trait = None
    try:
        trait = TraitSettings.model_validate(data)
    except ValidationError as error:
        problems += [_line(item, str(path)) for item in error.errors() if _ours(item)]
    raise_all(problems)
    assert trait is not None
    problem = protected_problem(trait)
    if problem:
        raise PvMergeError(f"{path}: {problem}")
    return trait


def prompt_source(text: str) -> dict[str, Any]:
    """Return what ``--prompts-from FILE``, ``DATA:FORMAT`` or ``written`` stands for."""
    from pv_merge.data import instructions, pairs

    if text == "written":
        return {"written": {}}
    place, colon, kind = text.rpartition(":")
    if colon and (kind in pairs.FORMATS or kind in instructions.FORMATS):
        return {"dataset": {"path": place, "format": kind}}
    return {"file": text}


def dump_trait(trait: TraitSettings) -> dict[str, Any]:
    """Return the trait as it is recorded: plain values, without what is unset."""
    return trait.model_dump(mode="json", exclude_none=True)


def _unknown(data: dict[str, Any], where: str) -> list[str]:
    problems = unknown_keys(data, TraitSettings.model_fields, where)
    parts: dict[str, type[StrictSettings]] = {
        "writer": ModelSettings, "judge": JudgeSettings, "prompts": PromptSettings,
        "train": TrainSettings,
    }  # fmt: skip
    for key, kind in parts.items():
        if isinstance(data.get(key), dict):
            problems += unknown_keys(data[key], kind.model_fields, f"{where}: {key}")
    return problems


def _ours(item: Any) -> bool:
    """Return whether an error is still to be told; unknown keys on the upper floors already are."""
    return item["type"] != "extra_forbidden" or len(item["loc"]) > 2


def _line(item: Any, where: str) -> str:
    place = ".".join(str(part) for part in item["loc"])
    head = f"{where}: {place}" if place else where
    if item["type"] == "missing":
        return f"{head} is required"
    message = item["msg"].removeprefix("Value error, ")
    # What stands in the place of a key may be the key itself, so it is not shown.
    shown = isinstance(item["input"], str | int | float) and item["loc"][-1:] != ("key_env",)
    shown = shown and item["loc"][-1:] != ("url",)
    return f"{head}: {message}" + (f", got {item['input']!r}" if shown else "")
