"""How clearly written answers show a trait, and how coherent they are, by a judge."""

from __future__ import annotations

import math
from typing import Any

from pv_merge.asking.grades import grade_messages, opposed
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.judge import MODEL, URL, Judge, make_judge, told
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
from pv_merge.evaluation.statistics import Estimate, bootstrap, known, share
from pv_merge.live.subject import Subject


class TraitMeasure:
    """Points (0–100) of each answer for a trait and for coherence."""

    needs_base = True

    def __init__(
        self, name: str, manners: tuple[str, str], prompted: Prompted, judge: Judge
    ) -> None:
        self.name, self.manners, self.prompted, self.judge = name, manners, prompted, judge

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompted.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        instructions = grade_messages(self.manners, "", "")[0][1]
        judged = {"judge": self.judge.model, "instructions": told(instructions)}
        return {"kind": "trait", **self.prompted.identity(), **judged}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers and their points; None for what the judge did not say."""
        answers = self.prompted.answers(subject, parts, advance)
        pairs = zip(self.prompted.texts, answers, strict=True)
        said = [(text, answer.text) for text, answer in pairs if answer]
        grades = self.judge.grades(self.manners, said)
        return {
            "answers": [answer and answer.text for answer in answers],
            "trait": [grade and grade.trait for grade in grades],
            "coherence": [grade and grade.coherence for grade in grades],
        }

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return the points of every answer, NaN for one that was not judged."""
        found = {
            name: [math.nan if value is None else float(value) for value in record[part]]
            for name, part in ((self.name, "trait"), (f"{self.name}.coherence", "coherence"))
        }
        found[f"{self.name}.unjudged"] = [float(value is None) for value in record["trait"]]
        return {**found, **too_long(self.name, record["answers"])}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each figure with its interval; prompts are resampled."""
        points = (self.name, f"{self.name}.coherence")
        return {
            name: (bootstrap if name in points else share)(known(values))
            for name, values in self.items(record, base).items()
        }

    def labels(self) -> dict[str, str]:
        """Return what each figure is, with its unit."""
        return {
            self.name: f"0–100: {self.manners[0]} (by {self.judge.model})",
            f"{self.name}.coherence": "0–100: fluent, complete, to the point (by the same)",
            f"{self.name}.unjudged": "share of answers that the judge gave no points",
            **too_long_label(self.name),
        }

    def better(self) -> dict[str, int]:
        """More is better."""
        return {self.name: 1, f"{self.name}.coherence": 1}


def _build(text: str, said: Settings) -> TraitMeasure:
    files, judge = answered_files(said), make_judge(said)
    if not files:
        raise PvMergeError(f"--judge-trait {text}: give --answers FILE, whose answers are judged")
    if judge is None:
        raise PvMergeError(f"--judge-trait {text}: give --judge-url URL, where the judge is")
    name, trait = named(text, "trait")
    description, _, opposite = (part.strip() for part in trait.partition("|"))
    if not description:
        raise PvMergeError(f"--judge-trait {text}: expected a description, such as 'is polite'")
    return TraitMeasure(
        name, opposed(description, opposite or None), read_prompted(files, said), judge
    )


TRAIT = MeasureKind(
    Option(
        "--judge-trait",
        "Points (0-100) of --answers for a trait, and for coherence, by --judge-url.",
        "[NAME=]TEXT[|OPPOSITE]",
    ),
    _build,
    settings=(URL, MODEL, ANSWERS),
)
