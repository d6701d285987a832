"""What one sees while a policy trains, and what is remembered of each step."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback


def progress_bar() -> Progress:
    """Return a progress bar with counts, time spent and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


class ProgressCallback(TrainerCallback):
    """Moves a bar with each step, and shows the latest loss, accuracy and margin."""

    def __init__(self, bar: Progress, label: str) -> None:
        self._bar, self._label, self._task = bar, label, None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar where the run starts, which on a resumed run is not zero."""
        self._task = self._bar.add_task(
            self._label, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the latest figures."""
        if logs and "rewards/accuracies" in logs and "loss" in logs and self._task is not None:
            note = "loss {loss:.3f} accuracy {rewards/accuracies:.2f} margin {rewards/margins:+.3f}"
            self._bar.update(self._task, note=note.format(**{k: float(v) for k, v in logs.items()}))


class Stopwatch(TrainerCallback):
    """Measures the seconds spent in training, over all the sessions of a resumed run."""

    def __init__(self, before: float = 0.0) -> None:
        self.seconds = before
        self._start = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop."""
        self.seconds += time.perf_counter() - self._start
