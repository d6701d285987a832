"""What written answers are like: how long, how often in a loop or cut off, how varied."""

from __future__ import annotations

import math
from typing import Any

from pv_merge.data.wording import LOOP_TIMES, LOOP_WORDS, distinct, loops, word_count
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.registry import MeasureKind
from pv_merge.evaluation.prompted import (
    ANSWERS,
    Prompted,
    read_prompted,
    too_long,
    too_long_label,
)
from pv_merge.evaluation.statistics import Estimate, bootstrap, known, share
from pv_merge.live.subject import Subject

SIZES = (1, 2)
"""Words of the n-grams whose variety is told."""


class WrittenMeasure:
    """Length, loops and variety of the answers to one set of prompts."""

    needs_base = True

    def __init__(self, name: str, prompted: Prompted) -> None:
        self.name, self.prompted = name, prompted

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompted.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        return {"kind": "written", **self.prompted.identity()}

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers, their lengths in tokens, and whether each was cut off."""
        found = self.prompted.answers(subject, parts, advance)
        return {
            "answers": [answer and answer.text for answer in found],
            "tokens": [answer and answer.tokens for answer in found],
            "cut": [answer and int(answer.cut) for answer in found],
        }

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each figure's value for every answer; variety is unknown (NaN) of too short ones."""
        texts = [text for text in record["answers"] if text is not None]
        found = {
            f"{self.name}_words": [float(word_count(text)) for text in texts],
            f"{self.name}_loops": [float(loops(text)) for text in texts],
            f"{self.name}.tokens": [float(n) for n in record["tokens"] if n is not None],
            f"{self.name}.cut": [float(cut) for cut in record["cut"] if cut is not None],
            f"{self.name}.empty": [float(not text) for text in texts],
            **too_long(self.name, record["answers"]),
        }
        for size in SIZES:
            shares = [distinct(text, size) for text in texts]
            found[f"{self.name}.distinct_{size}"] = [
                math.nan if value is None else value for value in shares
            ]
        return found

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each figure with its interval; prompts are resampled."""
        means = {f"{self.name}{end}" for end in ("_words", ".tokens", ".distinct_1", ".distinct_2")}
        items = {name: known(values) for name, values in self.items(record, base).items()}
        return {
            name: (bootstrap if name in means else share)(values)
            for name, values in items.items()
            if values
        }

    def labels(self) -> dict[str, str]:
        """Return what each figure is, with its unit."""
        how = self.prompted.how
        return {
            f"{self.name}_words": f"mean length of {how} answers (words)",
            f"{self.name}_loops": f"share of answers in which {LOOP_WORDS} words in a row come "
            f"{LOOP_TIMES} times or more",
            f"{self.name}.tokens": "mean length (tokens)",
            f"{self.name}.cut": f"share of answers cut off after {how.max_new_tokens} tokens",
            f"{self.name}.empty": "share of empty answers",
            **{
                f"{self.name}.distinct_{size}": f"mean share of an answer's {size}-grams of words that differ"
                for size in SIZES
            },
            **too_long_label(self.name),
        }

    def better(self) -> dict[str, int]:
        """Loops and empty answers are worse, variety is better; length is neither."""
        found = dict.fromkeys([f"{self.name}_loops", f"{self.name}.empty"], -1)
        return found | {f"{self.name}.distinct_{size}": 1 for size in SIZES}


WRITTEN = MeasureKind(
    ANSWERS,
    lambda text, said: WrittenMeasure(
        named(text, "written")[0], read_prompted([named(text, "written")[1]], said)
    ),
)
