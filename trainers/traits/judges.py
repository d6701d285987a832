"""How clearly an answer shows the trait, and how coherent it is: by a model, a reward model, or rules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Cost, Failure, Request
from pv_merge.asking.grades import GRADE_TOKENS, Grade, grade_messages, read_grade
from pv_merge.asking.messages import Messages
from pv_merge.asking.reading import ReadAsker
from trainers.traits.messages import manners, question_of
from trainers.traits.trait import RuleSettings, TraitSettings


@dataclass(frozen=True)
class Written:
    """One pair as it was written."""

    prompt: Messages
    positive: str
    negative: str


@dataclass(frozen=True)
class Verdict:
    """The grades of both answers."""

    positive: Grade
    negative: Grade

    def problem(self, trait: TraitSettings) -> str | None:
        """Return why the pair is not kept, or None."""
        if min(self.positive.coherence, self.negative.coherence) < trait.min_coherence:
            return "not coherent"
        high, low = self.positive.trait, self.negative.trait
        if high is not None and low is not None and high - low < trait.min_gap:
            return "too close in the trait" if high >= low else "the wrong way round"
        return None


class Judge(Protocol):
    """Grades pairs."""

    @property
    def name(self) -> str:
        """Who judges, in a few words, as it is recorded and published."""

    @property
    def note(self) -> str | None:
        """What the user must know of this way to judge."""

    @property
    def cost(self) -> Cost | None:
        """What was asked of it, where it is a model."""

    def judge(
        self, pairs: Sequence[Written], advance: Callable[[], None]
    ) -> list[Verdict | Failure]:
        """Return the verdict on each pair, or why there is none."""


class ModelJudge:
    """A model that is asked for two numbers."""

    note = None

    def __init__(self, trait: TraitSettings, asker: Asker) -> None:
        self._trait, self._asker = trait, asker
        self.name, self.cost = asker.backend.model, asker.cost
        advice = "take another model, a reward_model or rules"
        self._reader = ReadAsker(asker, read_grade, "numbers", advice)

    def judge(
        self, pairs: Sequence[Written], advance: Callable[[], None]
    ) -> list[Verdict | Failure]:
        """Ask for the grades of each answer by itself, so that neither colours the other."""
        requests = [
            self.request(question_of(pair.prompt), text)
            for pair in pairs
            for text in (pair.positive, pair.negative)
        ]
        grades = self._reader.ask(requests, advance)
        sides = zip(grades[::2], grades[1::2], strict=True)
        return [self._verdict(positive, negative) for positive, negative in sides]

    def request(self, question: str, answer: str) -> Request:
        """Return the request for one answer's grades."""
        messages = grade_messages(manners(self._trait), question, answer)
        temperature = self._asker.backend.temperature
        return Request(messages, GRADE_TOKENS, temperature or 0.0, self._trait.seed)

    @staticmethod
    def _verdict(positive: Grade | Failure, negative: Grade | Failure) -> Verdict | Failure:
        for side in (positive, negative):
            if isinstance(side, Failure):
                return side
        assert isinstance(positive, Grade) and isinstance(negative, Grade)
        return Verdict(positive, negative)


class RewardJudge:
    """A reward model: the probability, by Bradley and Terry, that it prefers the positive answer."""

    cost = None

    def __init__(self, name: str) -> None:
        self.name = f"the reward model {Path(name).name if Path(name).exists() else name}"
        self.note = (
            "no model judges the trait by its description: the reward model's preference stands for it, "
            "and rules judge coherence"
        )
        self._path = name
        self._model: Any = None

    def judge(
        self, pairs: Sequence[Written], advance: Callable[[], None]
    ) -> list[Verdict | Failure]:
        """Return 100·σ(difference of rewards) as the points of the positive answer."""
        if not pairs:
            return []
        if self._model is None:
            from pv_merge.evaluation.measures.reward import RewardModel

            self._model = RewardModel(self._path)
        questions = [question_of(pair.prompt) for pair in pairs for _ in (0, 1)]
        answers = [text for pair in pairs for text in (pair.positive, pair.negative)]
        scores = self._model.scores(list(zip(questions, answers, strict=True)))
        verdicts: list[Verdict | Failure] = []
        for pair, high, low in zip(pairs, scores[::2], scores[1::2], strict=True):
            points = 50.0 * (1.0 + math.tanh((high - low) / 2.0))
            verdicts.append(
                Verdict(
                    Grade(points, coherence(pair.positive)),
                    Grade(100.0 - points, coherence(pair.negative)),
                )
            )
            advance()
        return verdicts


class RuleJudge:
    """Phrases that speak for the trait or against it; without any, coherence alone is judged."""

    cost = None

    def __init__(self, rules: RuleSettings) -> None:
        self._toward = [re.compile(pattern, re.IGNORECASE) for pattern in rules.toward]
        self._against = [re.compile(pattern, re.IGNORECASE) for pattern in rules.against]
        count = len(self._toward) + len(self._against)
        self.name = f"rules ({count} phrases)" if count else "rules (coherence alone)"
        self.note = (
            "no model judges: phrases stand for the trait, and rules for coherence"
            if count
            else "nobody judges the trait: every pair that passes the checks is kept as it is labelled"
        )

    def judge(
        self, pairs: Sequence[Written], advance: Callable[[], None]
    ) -> list[Verdict | Failure]:
        """Grade by the phrases found."""
        for _ in pairs:
            advance()
        return [Verdict(self._grade(pair.positive), self._grade(pair.negative)) for pair in pairs]

    def _grade(self, text: str) -> Grade:
        if not self._toward and not self._against:
            return Grade(None, coherence(text))
        high = sum(bool(pattern.search(text)) for pattern in self._toward)
        low = sum(bool(pattern.search(text)) for pattern in self._against)
        points = 50.0 + 50.0 * (high - low) / (high + low) if high + low else 50.0
        return Grade(points, coherence(text))


def coherence(text: str) -> float:
    """Return points for coherence by rules: whole sentences, mostly words, little repetition."""
    points = 100.0
    if not re.search(r"[.!?…。！？:)\"'”’]\s*$", text):
        points -= 30
    visible = [character for character in text if not character.isspace()]
    if sum(character.isalpha() for character in visible) < 0.7 * len(visible):
        points -= 40
    words = text.casefold().split()
    if len(words) >= 20 and len(set(words)) < 0.45 * len(words):
        points -= 60
    return max(points, 0.0)
