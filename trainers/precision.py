"""What a narrow dtype loses: the share of an optimizer's updates that rounding undoes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from trainers.settings import TrainingSettings

SAMPLE = 2**18
"""Elements of each tensor that are looked at."""


def lossy_dtype(settings: TrainingSettings) -> str | None:
    """Return the narrower dtype that weights are trained or saved in, or None."""
    if settings.lora is not None:
        return None
    return next((d for d in (settings.base_dtype, settings.save_dtype) if d != "float32"), None)


def check_launcher(settings: TrainingSettings, arguments: Any) -> None:
    """Raise ``PvMergeError`` where DeepSpeed itself would hold the weights in a narrower dtype."""
    plugin = arguments.deepspeed_plugin
    if plugin is None or settings.allow_lossy:
        return
    config = plugin.deepspeed_config
    for name in ("bf16", "fp16"):
        if config.get(name, {}).get("enabled") in (True, "auto") and getattr(arguments, name):
            raise PvMergeError(
                f"DeepSpeed's {name} mode trains and saves the weights in it; take "
                "recipes/accelerate/deepspeed-zero3.yml, which keeps them in float32 under "
                "torch_autocast, or set allow_lossy: true"
            )
    if settings.lora is not None and plugin.zero_stage == 3 and settings.base_dtype != "float32":
        raise PvMergeError(
            f"base_dtype: {settings.base_dtype} under ZeRO-3 would train the adapter in it as well; "
            "leave it out, or set allow_lossy: true"
        )


def share_lost(before: torch.Tensor, after: torch.Tensor, dtype: torch.dtype) -> tuple[int, int]:
    """Return (elements that moved but round to where they were, elements that moved).

    ``before`` and ``after`` are float32 and of one shape; ``dtype`` is what they are rounded to.
    """
    moved = before != after
    lost = moved & (before.to(dtype) == after.to(dtype))
    return int(lost.sum()), int(moved.sum())


class LossMeter(TrainerCallback):
    """Measures, on the first step, the share of the float32 updates that ``dtype`` would lose.

    The step is made on float32 copies of a sample of the weights, at the full learning rate, by an
    optimizer of the same class.
    """

    def __init__(self, dtype: str, say: Callable[[str], Any]) -> None:
        self._name, self._say = dtype, say
        self._dtype: torch.dtype = getattr(torch, dtype)
        self.share: float | None = None

    def warning(self) -> str:
        """Return what the user is told."""
        return (
            f"warning: {self._name} weights lose {self.share or 0:.1%} of the first step's updates "
            "(allow_lossy: true)"
        )

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Measure, once."""
        if self.share is not None or optimizer is None:
            return
        inner = getattr(optimizer, "optimizer", optimizer)
        lost = moved = 0
        for group in inner.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            options["lr"] = group.get("initial_lr", args.learning_rate)
            options.pop("initial_lr", None)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                before = parameter.detach().reshape(-1)[:SAMPLE].float().clone()
                copy = torch.nn.Parameter(before.clone())
                copy.grad = parameter.grad.detach().reshape(-1)[:SAMPLE].float().clone()
                type(inner)([{"params": [copy], **options}]).step()
                some = share_lost(before, copy.detach(), self._dtype)
                lost, moved = lost + some[0], moved + some[1]
        self.share = lost / moved if moved else 0.0
        self._say(self.warning())


def cast_files(folder: Path, dtype: str) -> None:
    """Rewrite the safetensors files of ``folder`` with their floats in ``dtype``."""
    from safetensors.torch import load_file, save_file

    target: torch.dtype = getattr(torch, dtype)
    for path in sorted(folder.glob("*.safetensors")):
        tensors = {
            name: tensor.to(target) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(path).items()
        }
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})
    config = folder / "config.json"
    if config.exists():
        write_json(config, {**read_object(config), "dtype": dtype})
