"""What a run would cost: parameters, memory, steps, hours; measured from two real steps."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import Progress
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from pv_merge.data.pairs import load_pairs
from trainers import ranks
from trainers.arguments import dpo_arguments
from trainers.dpo_trainer import SharedReferenceTrainer
from trainers.model import load_model, load_tokenizer, lora_config
from trainers.progress import no_future_warnings, quiet_libraries
from trainers.reference import Sequence_, cut
from trainers.settings import DPOSettings
from trainers.tokens import tokenize

STEPS = 2
"""Steps that are really made; the last one is timed, since the first one warms up."""


@dataclass(frozen=True)
class Estimate:
    """What a pair of policies would cost."""

    parameters: int
    trainable: int
    weight_bytes: int
    """Weights, as loaded."""
    training_bytes: int
    """Gradients and Adam's two moments, in float32."""
    peak_bytes: int
    """The most memory that was in use during the real steps, on the device or in the process."""
    steps: int
    """Steps of one policy."""
    step_seconds: float
    reference_seconds: float
    """The reference pass over the pairs that are read, made once for both policies."""
    pairs: int

    @property
    def hours(self) -> float:
        """Expected hours for both policies."""
        return (self.reference_seconds + 2 * self.steps * self.step_seconds) / 3600


class _Timer(TrainerCallback):
    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start


def estimate(settings: DPOSettings) -> Estimate:
    """Return what the run would cost, after a reference pass and two steps on a few of its rows.

    Nothing is left on disk. Steps vary with the lengths of their rows, so the time is a rough one.
    """
    quiet_libraries()
    with tempfile.TemporaryDirectory() as place:
        real = dpo_arguments(settings, Path(place))
        data = load_pairs(settings.dataset)
        tokenizer = load_tokenizer(settings.base_model)
        tokens = tokenize(data.pairs, tokenizer, real, settings.dataset.path)
        per_step = (
            real.per_device_train_batch_size * real.gradient_accumulation_steps * real.world_size
        )
        steps = real.max_steps
        if steps <= 0:
            batches = math.ceil(
                len(tokens.rows) / (real.per_device_train_batch_size * real.world_size)
            )
            updates = math.ceil(batches / real.gradient_accumulation_steps)
            steps = math.ceil(updates * real.num_train_epochs)
        short = {
            "max_steps": STEPS,
            "save_strategy": "no",
            "eval_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": "none",
        }
        brief = settings.model_copy(
            update={"dpo": {**settings.dpo, **short}, "early_stopping_patience": None}
        )
        few = tokens.rows.shuffle(seed=0).select(range(min(STEPS * per_step, len(tokens.rows))))
        timer = _Timer()
        with no_future_warnings():
            trainer = SharedReferenceTrainer(
                model=load_model(settings),
                args=dpo_arguments(brief, Path(place)),
                train_dataset=few,
                processing_class=tokenizer,
                peft_config=lora_config(settings),
                callbacks=[timer],
                store=None,
                bar=Progress(disable=True),
                tree=settings.tree,
            )
            trainer.remove_callback(PrinterCallback)
            # The pass over these few rows was made just now; this one is timed.
            sample = [_sequence(row, real) for row in few.select(range(min(per_step, len(few))))]
            start = time.perf_counter()
            trainer._reference(sample)
            reference = (time.perf_counter() - start) / len(sample)
            trainer.train()
    every = list(trainer.model.parameters())
    trainable = sum(p.numel() for p in every if p.requires_grad)
    return Estimate(
        parameters=sum(p.numel() for p in every),
        trainable=trainable,
        weight_bytes=sum(p.numel() * p.element_size() for p in every),
        training_bytes=trainable * 4 * 3,
        peak_bytes=_peak(),
        steps=steps,
        step_seconds=timer.seconds,
        reference_seconds=reference * 2 * min(len(tokens.rows), steps * per_step) / real.world_size,
        pairs=len(tokens.rows),
    )


def _sequence(row: Any, arguments: Any) -> Sequence_:
    return cut((row["prompt_ids"], row["chosen_ids"]), arguments.max_length)


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def print_estimate(settings: DPOSettings, found: Estimate) -> None:
    """Print an estimate."""
    if ranks.rank() != 0:
        return
    gib = 2**30
    where = "GPU" if torch.cuda.is_available() else "process"
    console = Console(highlight=False)
    console.print(
        f"parameters       {found.parameters:,}, of which {found.trainable:,} are trained"
    )
    console.print(
        f"memory           {found.weight_bytes / gib:.2f} GiB weights + "
        f"{found.training_bytes / gib:.2f} GiB gradients and optimizer; "
        f"{found.peak_bytes / gib:.2f} GiB at most in the {where} during {STEPS} real steps"
    )
    console.print(f"steps            2 × {found.steps} over {found.pairs} pairs")
    console.print(
        f"time             {found.step_seconds:.2f} s a step, {found.reference_seconds:.0f} s for "
        f"the reference pass (once): {found.hours:.2f} hours for both policies"
    )
    console.print("nothing was trained or written")
