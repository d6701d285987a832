"""One training from its trainer to its files: begin or resume, watch, measure, save."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback
from transformers.trainer_callback import PrinterCallback

from pv_merge.artifacts.folders import readable, write_json
from pv_merge.errors import PvMergeError
from pv_merge.progress import say
from trainers import ranks
from trainers.manifest import hyperparameters
from trainers.plot import draw
from trainers.precision import LossMeter, cast_files, lossy_dtype
from trainers.progress import ProgressCallback, Stopwatch, no_future_warnings
from trainers.run_folder import seconds_before, tokens_before
from trainers.settings import TrainingSettings

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Outcome:
    """How one training went."""

    name: str
    """A policy's polarity, or ``base`` after supervised fine-tuning."""
    folder: Path
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()
    """Lines for the closing report, such as rows left out."""
    skipped: bool = False


class Session:
    """A training that may have been begun before."""

    def __init__(
        self, settings: TrainingSettings, checkpoint: Path | None, bar: Progress, label: str
    ) -> None:
        self.settings, self.checkpoint = settings, checkpoint
        self.watch = Stopwatch(seconds_before(checkpoint))
        dtype = lossy_dtype(settings)
        self.meter = LossMeter(dtype, partial(say, bar)) if dtype else None
        self.callbacks: list[Any] = [self.watch, ProgressCallback(bar, label)]
        if self.meter is not None:
            self.callbacks.append(self.meter)
        if settings.early_stopping_patience is not None:
            self.callbacks.append(EarlyStoppingCallback(settings.early_stopping_patience))

    def fit(self, trainer: Any) -> dict[str, float]:
        """Train, evaluate on held-out rows if there are any, and return the metrics."""
        trainer.remove_callback(PrinterCallback)
        trainer._total_train_tokens = tokens_before(self.checkpoint)
        start = str(self.checkpoint) if self.checkpoint else None
        try:
            with no_future_warnings():
                trainer.train(resume_from_checkpoint=start)
                final = trainer.evaluate() if trainer.eval_dataset is not None else {}
        except ValueError as error:
            if trainer.state.global_step:
                raise
            # TRL looks at some options, such as loss_type, only when the first step needs them.
            raise PvMergeError(f"TRL: {' '.join(str(error).split())}") from error
        except torch.OutOfMemoryError:
            raise PvMergeError(
                "out of GPU memory; lower per_device_train_batch_size (and raise "
                "gradient_accumulation_steps) or max_length, set gradient_checkpointing: true, or "
                "use lora"
            ) from None
        return self._metrics(trainer, final)

    def _metrics(self, trainer: Any, final: dict[str, Any]) -> dict[str, float]:
        steps = [log for log in trainer.state.log_history if "loss" in log]
        last = steps[-max(1, len(steps) // 4) :]
        tokens = float(steps[-1].get("num_tokens", 0)) if steps else 0.0
        metrics = {"steps": float(trainer.state.global_step)}
        names = {
            "loss": "loss",
            "rewards/accuracies": "accuracy",
            "rewards/margins": "margin",
            "accuracy": "accuracy",
            "margin": "margin",
            "mean_token_accuracy": "token_accuracy",
        }
        for key, name in names.items():
            if last and key in last[-1]:
                metrics[name] = sum(float(log[key]) for log in last) / len(last)
            if f"eval_{key}" in final:
                metrics[f"heldout_{name}"] = float(final[f"eval_{key}"])
        seconds = self.watch.seconds
        metrics |= {
            "seconds": seconds,
            "tokens": tokens,
            "tokens_per_second": tokens / max(seconds, 1e-9),
        }
        return {key: round(value, 6) for key, value in metrics.items()}

    def precision(self) -> dict[str, Any]:
        """Return what the manifest says of the weights' dtypes."""
        settings = self.settings
        found: dict[str, Any] = {
            "base_dtype": settings.base_dtype,
            "quantization": settings.quantization,
            "allow_lossy": settings.allow_lossy,
        }
        if self.meter is not None:
            found["share_of_first_updates_lost"] = self.meter.share
        return found

    def notes(self) -> tuple[str, ...]:
        """Return a warning if the weights were trained or saved in a dtype that loses updates."""
        if self.meter is None or self.meter.share is None:
            return ()
        return (self.meter.warning(),)


def save_weights(trainer: Any, folder: Path | None) -> None:
    """Save the model into ``folder`` on rank 0, in its own dtype; every rank must call this."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if folder is not None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.save_pretrained(folder, state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's, all placeholders


def finish_folder(
    folder: Path, staged: Path, settings: TrainingSettings, dtype: str, log: list[dict[str, Any]]
) -> None:
    """Move the staged weights into ``folder``, cast them to ``dtype``, and draw the curves."""
    for path in staged.iterdir():
        shutil.move(path, folder / path.name)
    if dtype != (settings.base_dtype if settings.lora is None else "float32"):
        cast_files(folder, dtype)
    write_json(folder / "pv_training_log.json", log)
    draw(log, folder / "pv_training.png")
    readable(folder)


def manifest_part(session: Session, trainer: Any, metrics: dict[str, float]) -> dict[str, Any]:
    """Return the part of a manifest that every training writes alike."""
    held_out = trainer.eval_dataset
    return {
        **({"heldout_rows": len(held_out)} if held_out is not None else {}),
        "precision": session.precision(),
        "processes": ranks.world_size(),
        "seed": trainer.args.seed,
        "hyperparameters": hyperparameters(trainer.args.to_dict()),
        "metrics": metrics,
    }
