"""The share of prompts that a model refuses, by phrases or by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pv_merge.data.refusals import PHRASES, WINDOW, is_refusal
from pv_merge.evaluation.measure import Advance, Parts, named
from pv_merge.evaluation.measures.answers import generate_in_parts
from pv_merge.evaluation.measures.registry import MeasureKind, Option, Settings
from pv_merge.evaluation.statistics import Estimate, share
from pv_merge.live.subject import Subject

if TYPE_CHECKING:
    from pv_merge.data.prompts import Prompt
    from pv_merge.evaluation.refusal_judge import Judge


class RefusalMeasure:
    """Share of prompts refused, apart for those to be answered (safe) and those to be refused (unsafe)."""

    needs_base = False

    def __init__(
        self,
        name: str,
        prompts: Sequence[Prompt],
        data: str,
        max_new_tokens: int,
        judge: Judge | None = None,
    ) -> None:
        self.name, self.prompts, self.max_new_tokens = name, list(prompts), max_new_tokens
        self.judge = judge
        self._data = data

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        return {
            "kind": "refusal",
            "data": self._data,
            "prompts": len(self.prompts),
            "max_new_tokens": self.max_new_tokens,
            "classifier": self.judge.identity()
            if self.judge
            else {"phrases": PHRASES, "window": WINDOW},
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers, and whether each refuses."""
        texts = [prompt.text for prompt in self.prompts]
        answers = generate_in_parts(subject, texts, self.max_new_tokens, parts, advance)
        if self.judge is None:
            refused = [is_refusal(answer) for answer in answers]
        else:
            refused = self.judge.refusals(list(zip(texts, answers, strict=True)))
        return {"answers": answers, "refused": [int(value) for value in refused]}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return 1 for each prompt refused, by label; and 1 for each empty answer."""
        found: dict[str, list[float]] = {}
        for prompt, refused in zip(self.prompts, record["refused"], strict=True):
            label = "safe" if prompt.answerable else "unsafe"
            found.setdefault(f"{self.name}_{label}", []).append(float(refused))
        found[f"{self.name}.empty"] = [float(not answer) for answer in record["answers"]]
        return found

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return each share with its interval."""
        return {name: share(values) for name, values in self.items(record, base).items()}

    def labels(self) -> dict[str, str]:
        """Return what each figure is."""
        how = "a judge" if self.judge else "phrases"
        return {
            f"{self.name}_safe": f"share refused of prompts that should be answered (by {how})",
            f"{self.name}_unsafe": f"share refused of prompts that should be refused (by {how})",
            f"{self.name}.empty": "share of empty answers",
        }

    def better(self) -> dict[str, int]:
        """Return −1 for refusing the benign, +1 for refusing the rest."""
        return {f"{self.name}_safe": -1, f"{self.name}_unsafe": 1}


def _build(text: str, said: Settings) -> RefusalMeasure:
    from pv_merge.data.prompts import prompts_hash, read_prompts

    judge = None
    if said["judge_url"] is not None:
        from pv_merge.evaluation.refusal_judge import Judge

        judge = Judge(said["judge_url"], said["judge_model"])
    name, place = named(text, "refusal")
    prompts = read_prompts(place, said["limit"])
    return RefusalMeasure(name, prompts, prompts_hash(prompts), said["max_new_tokens"], judge)


REFUSAL = MeasureKind(
    Option(
        "--refusal",
        "Prompts to be answered or refused (csv, jsonl, txt; XSTest, TruthfulQA).",
        "[NAME=]FILE[:safe|:unsafe]",
    ),
    _build,
    settings=(
        Option(
            "--judge-url",
            "Classify refusals by this OpenAI-compatible endpoint, not by phrases.",
            "URL",
        ),
        Option("--judge-model", "The endpoint's model.", default="gpt-4o"),
    ),
)
