"""Tasks of lm-evaluation-harness, on the live model; its library does the scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError, did_you_mean, first_line
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.capability import CAPABILITY
from pv_merge.evaluation.measures.registry import MeasureKind, Settings
from pv_merge.evaluation.statistics import Estimate
from pv_merge.live.subject import Subject

METRICS = (
    "acc_norm,none",
    "acc,none",
    "exact_match,none",
    "exact_match,strict-match",
    "word_perplexity,none",
)
"""What is read from a task's results, the first that is there; accuracies before the rest."""


class HarnessMeasure:
    """One task. Its interval is ± 1.96 of the standard error that the harness reports."""

    needs_base = False

    def __init__(self, name: str, task: str, limit: int | None = None) -> None:
        self.name, self.task, self.limit = name, task, limit
        known = task_names()
        if task not in known:
            raise PvMergeError(
                f"--capability {task}: no such file or task{did_you_mean(task, known)}"
            )

    @property
    def size(self) -> int:
        """One: the harness shows no progress of its own here."""
        return 1

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        from importlib.metadata import version

        return {
            "kind": "lm-eval",
            "task": self.task,
            "limit": self.limit,
            "lm_eval": version("lm_eval"),
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the harness's results of the task."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=8)
        try:
            found = lm_eval.simple_evaluate(
                wrapped, tasks=[self.task], limit=self.limit, bootstrap_iters=0, log_samples=False
            )
        except (OSError, ValueError, ConnectionError) as error:
            raise PvMergeError(
                f"--capability {self.task}: lm-evaluation-harness failed ({first_line(error)})"
            ) from None
        advance(1)
        results = {
            k: v for k, v in found["results"][self.task].items() if isinstance(v, int | float)
        }
        count = found.get("n-samples", {}).get(self.task, {}).get("effective", 0)
        return {"results": results, "n": count}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return nothing: the harness keeps its samples."""
        return {}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the task's main metric."""
        results = record["results"]
        metric = next((name for name in METRICS if name in results), None)
        if metric is None:
            raise PvMergeError(
                f"{self.task}: reports none of {', '.join(METRICS)}, but {', '.join(results)}"
            )
        head, _, tail = metric.partition(",")
        spread = 1.96 * float(results.get(f"{head}_stderr,{tail}") or 0.0)
        value = float(results[metric])
        if not spread and head.startswith("acc") and record["n"]:
            spread = 1.96 * (value * (1 - value) / record["n"]) ** 0.5
        return {self.name: Estimate(value, value - spread, value + spread, int(record["n"]))}

    def labels(self) -> dict[str, str]:
        """Return what the figure is."""
        return {self.name: f"lm-evaluation-harness: {self.task}"}

    def better(self) -> dict[str, int]:
        """More is better, but for perplexities."""
        return {self.name: -1 if "perplexity" in self.task or self.task == "wikitext" else 1}


def task_names() -> list[str]:
    """Return every task's name; ``PvMergeError`` if the library is not installed."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise PvMergeError(
            "--capability with a task's name needs lm-evaluation-harness: pip install lm-eval; "
            "a .txt file (perplexity) or a .jsonl file (CommonsenseQA) does not"
        ) from None
    return list(TaskManager().all_tasks)


def _build(text: str, said: Settings) -> HarnessMeasure:
    name, task = named(text, "")
    if Path(task).is_file():
        raise PvMergeError(
            f"--capability {text}: expected a .txt (perplexity) or a .jsonl (CommonsenseQA)"
        )
    return HarnessMeasure(name or task, task, said["limit"])


HARNESS = MeasureKind(CAPABILITY, _build)
