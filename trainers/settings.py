"""Training configs: what one may write in the YAML, checked all at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pv_merge.errors import PvMergeError, did_you_mean, raise_all, unknown_keys

Polarity = Literal["positive", "negative"]
POLARITIES: tuple[Polarity, Polarity] = ("positive", "negative")

OURS = {
    "output_dir": "output_dir is set at the top level of the config",
    "model_init_kwargs": "the model is loaded from base_model in float32",
    "precompute_ref_log_probs": "the reference pass is always made once and stored",
    "sync_ref_model": "the reference model is the base and stays frozen",
}
"""Options of TRL that this trainer owns, each with the reason that the user reads."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class DatasetSettings(_Settings):
    """Where preference pairs come from."""

    path: str
    """A json, jsonl, parquet or csv file (may be gzipped), a folder of them, or a name on the Hub."""
    format: str = "pairs"
    """How the rows are laid out; see ``trainers.preference_data.FORMATS``."""
    split: str = "train"
    """Split, with slices if wanted: ``train[:1000]``."""
    name: str | None = None
    """Configuration of a data set on the Hub that has several."""
    revision: str | None = None
    """Git revision of a data set on the Hub."""
    label: str | None = None
    """For ``pku-saferlhf``: ``better_response_id`` (helpful) or ``safer_response_id`` (harmless)."""
    max_rows: int | None = None
    """Keep the first so many rows."""
    max_chars: int | None = None
    """Leave out rows whose prompt plus longer answer has more characters."""


class DPOSettings(_Settings):
    """A training config for ``pv-train dpo``."""

    base_model: str
    """Folder or Hub name of the checkpoint that both policies start from."""
    preference: str
    """Name of the preference, such as ``helpful``."""
    dataset: DatasetSettings
    """Training pairs; the negative policy reads the same rows with chosen and rejected swapped."""
    eval_dataset: DatasetSettings | None = None
    """Held-out pairs, for the closing table and for evaluation during training."""
    lora: dict[str, Any] | None = None
    """PEFT's LoraConfig; leave out for full fine-tuning."""
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype that a finished adapter is stored in. Training is in float32 either way, and since an
    adapter is the delta itself, bfloat16 costs it 0.2 % and halves the file."""
    dpo: dict[str, Any] = {}
    """TRL's DPOConfig."""
    output_dir: str
    """Folder that will hold ``positive/`` and ``negative/``."""
    protected: bool | None = None
    """Whether a negative eta of this preference needs an explicit permission in the recipe;
    by default it does for preferences called harmless, harmlessness, safe or safety."""


PROTECTED_NAMES = frozenset({"harmless", "harmlessness", "safe", "safety"})


def is_protected(preference: str, said: bool | None) -> bool:
    """Return whether a preference is protected: as ``said``, else by its name."""
    return preference.lower() in PROTECTED_NAMES if said is None else said


def read_settings(path: str | Path, overrides: tuple[str, ...] = ()) -> DPOSettings:
    """Return the checked settings of a YAML file, after overrides such as ``dpo.beta=0.2``.

    Raises ``PvMergeError`` with every problem, a line each.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PvMergeError(f"{file}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PvMergeError(f"{file}: not valid YAML ({reason})") from None
    if not isinstance(data, dict):
        raise PvMergeError(f"{file}: expected keys such as base_model:, got {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    problems = _unknown(data, str(file))
    settings = None
    try:
        settings = DPOSettings.model_validate(data)
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            if item["type"] == "missing":
                problems.append(f"{file}: {where} is required")
            elif item["type"] != "extra_forbidden":
                problems.append(f"{file}: {where}: {item['msg']}, got {item['input']!r}")
    raise_all(problems)
    assert settings is not None
    return settings


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise PvMergeError(f"-o {override}: expected key=value, such as dpo.learning_rate=5e-7")
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = data.get(parent)
        if child is None:
            child = data[parent] = {}
        if not isinstance(child, dict):
            raise PvMergeError(f"-o {override}: {parent} has no keys of its own")
        data = child
    data[last] = yaml.safe_load(text)


def _unknown(data: dict[str, Any], where: str) -> list[str]:
    problems = unknown_keys(data, DPOSettings.model_fields, where)
    for part in ("dataset", "eval_dataset"):
        if isinstance(data.get(part), dict):
            problems += unknown_keys(data[part], DatasetSettings.model_fields, f"{where}: {part}")
    if isinstance(data.get("dpo"), dict):
        problems += _unknown_options(data["dpo"], _dpo_options(), f"{where}: dpo")
    if isinstance(data.get("lora"), dict):
        problems += _unknown_options(data["lora"], _lora_options(), f"{where}: lora")
    return problems


def _unknown_options(given: dict[str, Any], known: set[str], where: str) -> list[str]:
    problems = []
    for key in given:
        if key in OURS and where.endswith("dpo"):
            problems.append(f"{where}: {key} cannot be set; {OURS[key]}")
        elif key not in known:
            problems.append(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)}")
    return problems


def _dpo_options() -> set[str]:
    from trl import DPOConfig

    return {field.name for field in dataclasses.fields(DPOConfig)}


def _lora_options() -> set[str]:
    from peft import LoraConfig

    return {field.name for field in dataclasses.fields(LoraConfig)}
