"""Scores of answers by a reward or a cost model.

A cost model scores harm, so its figure is harmless = −cost, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pv_merge.data.prompts import Prompt
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.answers import generate_in_parts
from pv_merge.evaluation.measures.registry import MeasureKind, Option, Settings
from pv_merge.evaluation.reward_adapter import refuse_known
from pv_merge.evaluation.reward_model import RewardModel
from pv_merge.evaluation.statistics import Estimate, bootstrap
from pv_merge.live.subject import Subject


class RewardMeasure:
    """Mean score of greedy answers; of a cost model, the negative."""

    needs_base = False

    def __init__(
        self,
        name: str,
        model: str,
        prompts: Sequence[Prompt],
        data: str,
        max_new_tokens: int,
        cost: bool = False,
        known: int = 0,
    ) -> None:
        refuse_known(model, [prompt.text for prompt in prompts], known)
        self.name, self.model, self.cost = name, model, cost
        self.prompts, self.max_new_tokens = [prompt.text for prompt in prompts], max_new_tokens
        self._data = data
        self._scorer: RewardModel | None = None

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        from pv_merge.artifacts.provenance import model_hash

        return {
            "kind": "cost" if self.cost else "reward",
            "model": model_hash(self.model),
            "data": self._data,
            "prompts": len(self.prompts),
            "max_new_tokens": self.max_new_tokens,
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers and their scores."""
        if self._scorer is None:
            self._scorer = RewardModel(self.model)
        answers = generate_in_parts(subject, self.prompts, self.max_new_tokens, parts, advance)
        scores = self._scorer.scores(list(zip(self.prompts, answers, strict=True)))
        return {"answers": answers, "scores": [round(score, 6) for score in scores]}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each answer's score; of a cost model, the negative."""
        sign = -1.0 if self.cost else 1.0
        return {self.name: [sign * score for score in record["scores"]]}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the mean with its interval."""
        return {name: bootstrap(values) for name, values in self.items(record, base).items()}

    def labels(self) -> dict[str, str]:
        """Return what the figure is."""
        what = "mean of −cost" if self.cost else "mean reward"
        return {self.name: f"{what} of greedy answers, by {Path(self.model).name}"}

    def better(self) -> dict[str, int]:
        """More is better, since a cost's sign is turned."""
        return {self.name: 1}


def _build(text: str, said: Settings, *, cost: bool) -> RewardMeasure:
    from pv_merge.data.prompts import prompts_hash, read_prompts

    if said["reward_prompts"] is None:
        flag = "--cost-model" if cost else "--reward-model"
        raise PvMergeError(
            f"{flag} {text}: give --reward-prompts FILE, whose answers it is to score"
        )
    name, model = named(text, "harmlessness" if cost else "reward")
    prompts = read_prompts(said["reward_prompts"], said["limit"])
    return RewardMeasure(
        name,
        model,
        prompts,
        prompts_hash(prompts),
        said["max_new_tokens"],
        cost,
        said["known_prompts"],
    )


_PROMPTS = Option(
    "--reward-prompts", "Prompts for reward and cost models (csv, jsonl, txt).", "FILE"
)
_KNOWN = Option(
    "--known-prompts",
    "How many of --reward-prompts a reward model may have been trained on.",
    kind=int,
    default=0,
    minimum=0,
)
REWARD = MeasureKind(
    Option("--reward-model", "Mean score of answers to --reward-prompts.", "[NAME=]MODEL"),
    lambda text, said: _build(text, said, cost=False),
    settings=(_PROMPTS, _KNOWN),
)
COST = MeasureKind(
    Option("--cost-model", "The same of −cost.", "[NAME=]MODEL"),
    lambda text, said: _build(text, said, cost=True),
    settings=(_PROMPTS, _KNOWN),
)
