"""What the evidence by written text is taken of: a base, policies, reward models, prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.evidence.text.knowledge import TextChoicesMeasure
from pv_merge.evaluation.measure import Measure
from pv_merge.evaluation.measures.registry import build_measures

TWO = ("helpful", "harmless")


@dataclass(frozen=True)
class TextEvidence:
    """One base with its policies, and the files by which all are measured."""

    base: Path
    policies: Mapping[str, Path]
    """Folders with ``positive`` and ``negative``; ``safe-first``, if it is trained, has the first alone."""
    rewards: Mapping[str, Path]
    """A reward model for each of ``TWO``; none of ``prompts`` was among those it was trained on."""
    pairs: Mapping[str, Path]
    """The training pairs of each of ``TWO``, from which activation steering takes its directions."""
    prompts: Path
    refusals: Path
    neutral: Path
    knowledge: Path
    work: Path
    new_tokens: int = 64

    def options(self) -> dict[str, Any]:
        """Return what a sweep is asked to measure: one generation serves rewards and text."""
        return {
            "answers": [f"written={self.prompts}"],
            "reward_model": [f"{name}={path}" for name, path in self.rewards.items()],
            "refusal": [f"xstest={self.refusals}"],
            "max_new_tokens": self.new_tokens,
        }

    def measures(self, capability: bool = True) -> list[Measure]:
        """Return the measures; ``capability`` adds perplexity of neutral text, and knowledge."""
        found = build_measures(**self.options())
        if capability:
            found += build_measures(capability=[f"perplexity={self.neutral}"])
            found.append(TextChoicesMeasure("knowledge", self.knowledge))
        return found

    def recipe(self, name: str, sides: Mapping[str, tuple[str, ...]]) -> Path:
        """Write the recipe of some polarities of some policies, and return its path."""
        models = [
            {
                "model": f"./{self.policies[preference]}/{side}"
                if not self.policies[preference].is_absolute()
                else str(self.policies[preference] / side),
                "parameters": {"preference": preference, "polarity": side, "eta": 1.0},
            }
            for preference, chosen in sides.items()
            for side in chosen
        ]
        base = str(self.base) if self.base.is_absolute() else f"./{self.base}"
        document = {
            "merge_method": "preference_vector",
            "base_model": base,
            "models": models,
            "parameters": {"allow_protected_negative": True},
        }
        path = self.work / f"{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return path
