"""The YAML file of a training run: read, overridden, and checked, all problems at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pv_merge.artifacts.names import name_problem
from pv_merge.data.documents import parse_yaml_value, read_yaml
from pv_merge.data.settings import DatasetSettings, PairsDataset
from pv_merge.errors import PvMergeError, did_you_mean, raise_all, unknown_keys
from trainers.settings import DPOSettings, RewardSettings, SFTSettings, TrainingSettings

OURS = {
    "output_dir": "output_dir is set at the top level of the config",
    "model_init_kwargs": "use base_dtype, quantization and attn_implementation",
    "precompute_ref_log_probs": "the reference pass is always made once and stored",
    "sync_ref_model": "the reference model is the base and stays frozen",
    "save_only_model": "without its optimizer's state a run could not be resumed",
    "ld_alpha": "its reference would depend on both answers of a pair, so it cannot be shared",
    "use_liger_kernel": "TRL gives it up; set use_kernels: true at the top level of the config",
    "push_to_hub": "use pv-train's --push-to-hub",
}
"""Options of TRL that this trainer owns, each with the reason that the user reads."""

OPTIONS: dict[type[TrainingSettings], str] = {
    DPOSettings: "dpo",
    SFTSettings: "sft",
    RewardSettings: "reward",
}
"""Key of TRL's options in each kind of config."""

AnySettings = TypeVar("AnySettings", bound=TrainingSettings)


def read_settings(path: str | Path, overrides: tuple[str, ...] = ()) -> DPOSettings:
    """Return the checked settings of a YAML file for ``pv-train dpo``, after ``overrides``.

    Raises ``PvMergeError`` with every problem, a line each.
    """
    return _read(DPOSettings, path, overrides)


def read_sft_settings(path: str | Path, overrides: tuple[str, ...] = ()) -> SFTSettings:
    """Return the checked settings of a YAML file for ``pv-train sft``; see ``read_settings``."""
    return _read(SFTSettings, path, overrides)


def read_reward_settings(path: str | Path, overrides: tuple[str, ...] = ()) -> RewardSettings:
    """Return the checked settings of a YAML file for ``pv-train reward``; see ``read_settings``."""
    return _read(RewardSettings, path, overrides)


def _read(kind: type[AnySettings], path: str | Path, overrides: tuple[str, ...]) -> AnySettings:
    file = Path(path)
    data = read_yaml(file)
    for override in overrides:
        _override(data, override)
    problems = _unknown(kind, data, str(file))
    settings = None
    try:
        settings = kind.model_validate(data)
        problems += [f"{file}: {problem}" for problem in _conflicts(settings)]
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


def _conflicts(settings: TrainingSettings) -> list[str]:
    """Return what does not go together."""
    found = []
    if isinstance(settings, DPOSettings) and (line := name_problem(settings.preference)):
        found.append(f"preference: {line}")
    held_out = getattr(settings, "eval_dataset", None)
    if settings.early_stopping_patience is not None and held_out is None:
        found.append("early_stopping_patience needs an eval_dataset")
    if settings.options.get("eval_strategy", "no") != "no" and held_out is None:
        found.append("eval_strategy needs an eval_dataset")
    if isinstance(settings, SFTSettings) and settings.quantization:
        found.append(
            "quantization is for pv-train dpo and reward; a LoRA merged into 4-bit weights would be lost in them"
        )
    if settings.lora is None:
        if settings.quantization:
            found.append(
                f"quantization: {settings.quantization} needs lora: its weights are frozen"
            )
        for key, verb in (("base_dtype", "train"), ("save_dtype", "save")):
            dtype = getattr(settings, key)
            if dtype != "float32" and not settings.allow_lossy:
                found.append(
                    f"{key}: {dtype} would {verb} the weights in {dtype}, which loses updates too "
                    "small for it; leave it out (mixed precision keeps float32 weights), or set "
                    "allow_lossy: true, and the share lost is measured on the first step"
                )
    elif settings.save_dtype != "float32" and not isinstance(settings, SFTSettings):
        found.append("save_dtype is for full fine-tuning; for an adapter, set adapter_dtype")
    return found


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
    data[last] = parse_yaml_value(text, f"-o {override}")


def _unknown(kind: type[TrainingSettings], data: dict[str, Any], where: str) -> list[str]:
    problems = unknown_keys(data, kind.model_fields, where)
    rows_of = DatasetSettings if kind is SFTSettings else PairsDataset
    for part in ("dataset", "eval_dataset"):
        path, rows = part, data.get(part)
        while isinstance(rows, dict):
            problems += unknown_keys(rows, rows_of.model_fields, f"{where}: {path}")
            path, rows = f"{path}.without", rows.get("without")
    options = OPTIONS[kind]
    if isinstance(data.get(options), dict):
        known = _trl_options(options)
        for key in data[options]:
            if key in OURS:
                problems.append(f"{where}: {options}: {key} cannot be set; {OURS[key]}")
            elif key not in known:
                hint = did_you_mean(str(key), known)
                problems.append(f"{where}: {options}: unknown key {str(key)!r}{hint}")
    if isinstance(data.get("lora"), dict):
        from peft import LoraConfig

        fields = [field.name for field in dataclasses.fields(LoraConfig)]
        problems += unknown_keys(data["lora"], fields, f"{where}: lora")
    return problems


def _trl_options(kind: str) -> set[str]:
    import trl

    config = {"dpo": trl.DPOConfig, "sft": trl.SFTConfig, "reward": trl.RewardConfig}[kind]
    return {field.name for field in dataclasses.fields(config)}
