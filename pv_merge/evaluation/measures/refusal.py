"""The share of prompts that a model refuses, by phrases and, where there is one, by a judge."""

from __future__ import annotations

import math
from typing import Any

from pv_merge.data.refusals import PHRASES, WINDOW, is_refusal
from pv_merge.evaluation.judge import MODEL, REFUSES, URL, Judge, make_judge, told
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.registry import MeasureKind, Option, Settings
from pv_merge.evaluation.prompted import Prompted, read_prompted, too_long, too_long_label
from pv_merge.evaluation.statistics import Estimate, known, share
from pv_merge.live.subject import Subject


class RefusalMeasure:
    """Share of prompts refused, apart for those to be answered (safe) and those to be refused (unsafe).

    With a judge the share is the judge's, and that by phrases stands beside it.
    """

    needs_base = False

    def __init__(self, name: str, prompted: Prompted, judge: Judge | None = None) -> None:
        self.name, self.prompted, self.judge = name, prompted, judge

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self.prompted.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        phrases = {"phrases": PHRASES, "window": WINDOW}
        if self.judge is None:
            classifier: dict[str, Any] = phrases
        else:
            classifier = {"judge": self.judge.model, "instructions": told(REFUSES), **phrases}
        return {"kind": "refusal", **self.prompted.identity(), "classifier": classifier}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers, and whether each refuses; None where the judge does not say."""
        found = self.prompted.answers(subject, parts, advance)
        answers = [None if answer is None else answer.text for answer in found]
        phrases = [None if text is None else int(is_refusal(text)) for text in answers]
        if self.judge is None:
            return {"answers": answers, "refused": phrases}
        places = [place for place, text in enumerate(answers) if text is not None]
        pairs = [(self.prompted.texts[place], str(answers[place])) for place in places]
        verdicts = dict(zip(places, self.judge.refusals(pairs), strict=True))
        refused = [verdicts.get(place) for place in range(len(answers))]
        judged = [None if verdict is None else int(verdict) for verdict in refused]
        return {"answers": answers, "refused": judged, "by_phrases": phrases}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return 1 for each prompt refused, by label; NaN for one that was not judged."""
        answers = record["answers"]
        found = self._by_label(f"{self.name}_", record["refused"], answers)
        there = [text for text in answers if text is not None]
        found[f"{self.name}.empty"] = [float(not text) for text in there]
        if "by_phrases" in record:
            found |= self._by_label(f"{self.name}.phrases_", record["by_phrases"], answers)
            pairs = zip(record["refused"], answers, strict=True)
            unjudged = [float(verdict is None) for verdict, text in pairs if text is not None]
            found[f"{self.name}.unjudged"] = unjudged
        return {**found, **too_long(self.name, answers)}

    def _by_label(
        self, prefix: str, refused: list[int | None], answers: list[str | None]
    ) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for prompt, verdict, text in zip(self.prompted.prompts, refused, answers, strict=True):
            if text is not None:
                label = "safe" if prompt.answerable else "unsafe"
                value = math.nan if verdict is None else float(verdict)
                found.setdefault(f"{prefix}{label}", []).append(value)
        return found

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each share with its interval."""
        items = {name: known(values) for name, values in self.items(record, base).items()}
        return {name: share(values) for name, values in items.items() if values}

    def labels(self) -> dict[str, str]:
        """Return what each figure is."""
        how = "phrases" if self.judge is None else self.judge.model
        return {
            f"{self.name}_safe": f"share refused of prompts that should be answered (by {how})",
            f"{self.name}_unsafe": f"share refused of prompts that should be refused (by {how})",
            f"{self.name}.phrases_safe": "the first by phrases",
            f"{self.name}.phrases_unsafe": "the second by phrases",
            f"{self.name}.unjudged": "share of answers that the judge gave no verdict",
            f"{self.name}.empty": "share of empty answers",
            **too_long_label(self.name),
        }

    def better(self) -> dict[str, int]:
        """Return −1 for refusing the benign, +1 for refusing the rest."""
        return {f"{self.name}_safe": -1, f"{self.name}_unsafe": 1}


def _build(text: str, said: Settings) -> RefusalMeasure:
    name, place = named(text, "refusal")
    return RefusalMeasure(name, read_prompted([place], said), make_judge(said))


REFUSAL = MeasureKind(
    Option(
        "--refusal",
        "Prompts to be answered or refused (csv, jsonl, txt; XSTest, TruthfulQA, JBB-Behaviors).",
        "[NAME=]FILE[:safe|:unsafe]",
    ),
    _build,
    settings=(URL, MODEL),
)
