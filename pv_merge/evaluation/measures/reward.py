"""Scores of answers by a reward or a cost model.

A cost model scores harm, so its figure is harmless = −cost, as in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.registry import MeasureKind, Option, Settings
from pv_merge.evaluation.prompted import (
    ANSWERS,
    Prompted,
    answered_files,
    read_prompted,
    too_long,
    too_long_label,
)
from pv_merge.evaluation.reward_adapter import refuse_known
from pv_merge.evaluation.reward_model import RewardModel
from pv_merge.evaluation.statistics import Estimate, bootstrap, share
from pv_merge.live.subject import Subject


class RewardMeasure:
    """Mean score of greedy answers; of a cost model, the negative."""

    needs_base = False

    def __init__(
        self,
        name: str,
        model: str,
        prompted: Prompted,
        cost: bool = False,
        known: int = 0,
    ) -> None:
        refuse_known(model, prompted.texts, known)
        self.name, self.model, self.cost, self.prompted = name, model, cost, prompted
        self._scorer: RewardModel | None = None

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompted.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        from pv_merge.artifacts.provenance import model_hash

        return {
            "kind": "cost" if self.cost else "reward",
            "model": model_hash(self.model),
            **self.prompted.identity(),
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers and their scores."""
        if self._scorer is None:
            self._scorer = RewardModel(self.model)
        answers = self.prompted.answers(subject, parts, advance)
        pairs = zip(self.prompted.texts, answers, strict=True)
        scores = self._scorer.scores([(text, said.text) for text, said in pairs if said])
        texts = [answer and answer.text for answer in answers]
        return {"answers": texts, "scores": [round(score, 6) for score in scores]}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each answer's score; of a cost model, the negative."""
        sign = -1.0 if self.cost else 1.0
        scores = [sign * score for score in record["scores"]]
        return {self.name: scores, **too_long(self.name, record["answers"])}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the mean with its interval."""
        items = self.items(record, base)
        return {name: (bootstrap if name == self.name else share)(v) for name, v in items.items()}

    def labels(self) -> dict[str, str]:
        """Return what the figure is."""
        what = "mean of −cost" if self.cost else "mean reward"
        said = f"{what} of {self.prompted.how} answers, by {Path(self.model).name}"
        return {self.name: said, **too_long_label(self.name)}

    def better(self) -> dict[str, int]:
        """More is better, since a cost's sign is turned."""
        return {self.name: 1}


def _build(text: str, said: Settings, *, cost: bool) -> RewardMeasure:
    own = said["reward_prompts"]
    files = answered_files(said) if own is None else [own]
    if not files:
        flag = "--cost-model" if cost else "--reward-model"
        raise PvMergeError(
            f"{flag} {text}: give --reward-prompts FILE or --answers FILE, whose answers it is to score"
        )
    name, model = named(text, "harmlessness" if cost else "reward")
    return RewardMeasure(name, model, read_prompted(files, said), cost, said["known_prompts"])


_PROMPTS = Option(
    "--reward-prompts",
    "Prompts for reward and cost models, where they are not those of --answers.",
    "FILE",
)
_KNOWN = Option(
    "--known-prompts",
    "How many of the prompts a reward model may have been trained on.",
    kind=int,
    default=0,
    minimum=0,
)
REWARD = MeasureKind(
    Option(
        "--reward-model", "Mean score of answers to --answers or --reward-prompts.", "[NAME=]MODEL"
    ),
    lambda text, said: _build(text, said, cost=False),
    settings=(_PROMPTS, _KNOWN, ANSWERS),
)
COST = MeasureKind(
    Option("--cost-model", "The same of −cost.", "[NAME=]MODEL"),
    lambda text, said: _build(text, said, cost=True),
    settings=(_PROMPTS, _KNOWN, ANSWERS),
)
