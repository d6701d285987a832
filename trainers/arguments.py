"""TRL's configs: the user's options over defaults that suit the machine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from trl import DPOConfig, RewardConfig, SFTConfig

from pv_merge.errors import PvMergeError
from trainers.settings import DPOSettings, RewardSettings, SFTSettings, TrainingSettings

Config = TypeVar("Config", DPOConfig, SFTConfig, RewardConfig)


def dpo_arguments(settings: DPOSettings, work: Path) -> DPOConfig:
    """Return TRL's DPOConfig for a run that works in the folder ``work``."""
    return _arguments(DPOConfig, "dpo", settings, work, {"precompute_ref_log_probs": True})


def sft_arguments(settings: SFTSettings, work: Path) -> SFTConfig:
    """Return TRL's SFTConfig for a run that works in the folder ``work``."""
    return _arguments(SFTConfig, "sft", settings, work, {})


def reward_arguments(settings: RewardSettings, work: Path) -> RewardConfig:
    """Return TRL's RewardConfig for a run that works in the folder ``work``."""
    return _arguments(RewardConfig, "reward", settings, work, {})


def _arguments(
    config: type[Config], name: str, settings: TrainingSettings, work: Path, fixed: dict[str, Any]
) -> Config:
    given = settings.options
    cuda = torch.cuda.is_available() and not given.get("use_cpu", False)
    options: dict[str, Any] = {
        "bf16": cuda and torch.cuda.is_bf16_supported() and not given.get("fp16", False),
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": 25,
        "save_total_limit": 1,
        "report_to": "none",
        "dataloader_pin_memory": cuda,
        "use_cpu": not cuda,
        "ddp_find_unused_parameters": False,
    }
    if settings.early_stopping_patience is not None:
        # Saving and evaluating go together, or there is no checkpoint of the best evaluation.
        strategy = given.get("eval_strategy", "steps")
        every = given.get("eval_steps", given.get("save_steps", options["save_steps"]))
        options |= {
            "eval_strategy": strategy,
            "save_strategy": strategy,
            "eval_steps": every,
            "save_steps": every,
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,
        }
    options |= given
    options |= {"output_dir": str(work), "disable_tqdm": True, **fixed}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return config(**options)
    except (ValueError, TypeError, ImportError) as error:
        raise PvMergeError(f"{name}: {' '.join(str(error).split())}") from None


def place_logs(arguments: DPOConfig | SFTConfig | RewardConfig, final: Path) -> None:
    """Have TensorBoard write beside the result, since the work folder does not outlive the run."""
    if "tensorboard" in (arguments.report_to or ()):
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(final.parent / "logs" / final.name)
