"""What one sees while a policy trains, and what is remembered of each step."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from pv_merge.artifacts.folders import write_json
from pv_merge.errors import PvMergeError
from pv_merge.progress import progress
from trainers import ranks
from trainers.run_folder import SECONDS


def progress_bar() -> Progress:
    """Return a progress bar with counts and the time left; only rank 0 shows its own."""
    return progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=ranks.rank() != 0,
    )


@contextmanager
def no_future_warnings() -> Iterator[None]:
    """Silence, within the block, what the libraries beneath say to their own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def quiet_libraries() -> None:
    """Silence the bars and notices of the libraries beneath; ours say what is going on."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)


SHOWN = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "accuracy": "accuracy",
    "margin": "margin",
}
"""Our name of each figure that is shown while training, by TRL's; a reward model's are the last two."""
NOTES = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.2f}",
    "margin": "margin {:+.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


class ProgressCallback(TrainerCallback):
    """Moves a bar with each step, shows the latest figures, and stops where they are not finite."""

    def __init__(self, bar: Progress, label: str) -> None:
        self._bar, self._label = bar, label
        self._task: TaskID | None = None
        self._start = (0.0, 0.0)  # seconds and tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar where the run starts, which on a resumed run is not zero."""
        self._task = self._bar.add_task(
            self._label, total=state.max_steps, completed=state.global_step, note="", unit="step"
        )
        self._bar.update(self._task)
        seen = max((log.get("num_tokens", 0) for log in state.log_history), default=0)
        self._start = (time.perf_counter(), float(seen))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar, unless the step's figures are to come and move it."""
        if self._task is not None and not control.should_log:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the latest figures; raise ``PvMergeError`` if the loss is not a finite number."""
        if not logs or "loss" not in logs or self._task is None:
            return
        if not math.isfinite(float(logs["loss"])):
            raise PvMergeError(
                f"{self._label}: the loss is {logs['loss']} at step {state.global_step}; is the "
                "learning rate too high, or fp16 too narrow (bf16: true)?"
            )
        figures = {name: float(logs[key]) for key, name in SHOWN.items() if key in logs}
        if "num_tokens" in logs:
            seconds = max(time.perf_counter() - self._start[0], 1e-9)
            figures["tokens_per_second"] = round((logs["num_tokens"] - self._start[1]) / seconds, 1)
        note = ", ".join(NOTES[name].format(value) for name, value in figures.items())
        self._bar.update(self._task, completed=state.global_step, note=note, figures=figures)


class Stopwatch(TrainerCallback):
    """Measures the seconds spent in training, over all the sessions of a resumed run."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._start: float | None = None
        self._stop: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds spent until now, or until training ended."""
        if self._start is None:
            return self._before
        return self._before + (self._stop or time.perf_counter()) - self._start

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start."""
        self._start, self._stop = time.perf_counter(), None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the time in the checkpoint, for a run that goes on from it."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write_json(folder / SECONDS, {"seconds": round(self.seconds, 3)})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop."""
        self._stop = time.perf_counter()
