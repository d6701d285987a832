"""The trait file: a preference in a sentence, and who writes and judges the pairs that teach it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from pv_merge.asking.settings import ModelSettings
from pv_merge.data.settings import DatasetSettings, StrictSettings

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Score = Annotated[float, Field(ge=0, le=100)]

BASE = "base"
"""As a ``model``: the model that is to be trained writes itself."""


class RuleSettings(StrictSettings):
    """Phrases that tell the trait where no model judges: regular expressions, case ignored."""

    toward: list[str] = Field(default_factory=list)
    """Found in an answer, these speak for the trait."""
    against: list[str] = Field(default_factory=list)
    """Found in an answer, these speak for its opposite."""

    @field_validator("toward", "against")
    @classmethod
    def _expressions(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        return value


class JudgeSettings(ModelSettings):
    """Who judges: a model, a reward model, or rules."""

    reward_model: str | None = None
    """A sequence-classification model with one output, which compares the two answers."""
    rules: RuleSettings | None = None
    """Phrases instead of a model; ``rules: {}`` judges coherence alone."""

    @model_validator(mode="after")
    def _one_kind(self) -> JudgeSettings:
        if sum(value is not None for value in (self.model, self.reward_model, self.rules)) != 1:
            raise ValueError("expected one of model, reward_model and rules")
        return self


class WrittenPrompts(StrictSettings):
    """Prompts that the writer invents, varied by topic and form."""

    topics: list[str] = Field(default_factory=list)
    """Topics; without them a list of everyday ones is used."""
    forms: list[str] = Field(default_factory=list)
    """Forms, such as ``a question`` or ``a complaint``; without them a list of ours."""
    at_once: Annotated[int, Field(gt=0, le=50)] = 10
    """Prompts asked for in one request."""


class PromptSettings(StrictSettings):
    """Where the prompts come from: exactly one of these."""

    file: str | None = None
    """A csv, jsonl or txt file of prompts."""
    dataset: DatasetSettings | None = None
    """Any data set of pairs or instructions, of which the prompts alone are read."""
    written: WrittenPrompts | None = None
    """Have the writer invent them."""

    @model_validator(mode="after")
    def _one_source(self) -> PromptSettings:
        if sum(value is not None for value in (self.file, self.dataset, self.written)) != 1:
            raise ValueError("expected one of file, dataset and written")
        return self


class TrainSettings(StrictSettings):
    """How ``pv-train trait`` trains: what the DPO config says beside the data."""

    lora: dict[str, Any] | None = Field(
        default_factory=lambda: {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    )
    """PEFT's LoraConfig; null for full fine-tuning."""
    dpo: dict[str, Any] = Field(default_factory=dict)
    """TRL's DPOConfig; it overrides ours key by key."""


class TraitSettings(StrictSettings):
    """One trait."""

    preference: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
    """Name of the preference, such as ``patient``."""
    description: Annotated[str, Field(min_length=3, max_length=2000)]
    """What the trait is, such as ``answers as a patient teacher would``."""
    opposite: Annotated[str, Field(min_length=3, max_length=2000)] | None = None
    """What its opposite is; without it, the contrary of the description."""
    pairs: Count = 200
    """Pairs to keep, the held-out ones included."""
    held_out: Share = 0.15
    """Share of the prompts whose pairs are held out."""
    per_prompt: Annotated[int, Field(gt=0, le=20)] = 1
    """Times that a prompt may be answered, each time under another wording."""
    prompts: PromptSettings = Field(
        default_factory=lambda: PromptSettings(written=WrittenPrompts())
    )
    writer: ModelSettings
    judge: JudgeSettings | None = None
    """Without it, the writer judges if it is behind an endpoint, and rules do if it is not."""
    max_words: Annotated[int, Field(ge=5, le=2000)] = 80
    """Words that an answer is asked to stay under."""
    length_band: Annotated[float, Field(gt=1)] | None = 1.6
    """Most that one answer of a pair may be longer than the other; null where length is the trait."""
    min_gap: Score = 40.0
    """Points (0–100) that the two answers must lie apart in the trait."""
    min_coherence: Score = 50.0
    """Points (0–100) that both answers must have in coherence."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    """ISO 639 code of the language that answers must be in."""
    allow_refusals: bool = False
    """Keep answers that refuse; for a trait that is about refusing."""
    seed: Annotated[int, Field(ge=0)] = 0
    opposes: str | None = None
    """A protected preference that the trait moves against, or ``none`` where it moves against none."""
    allow_protected: bool = False
    """Permission for a trait that opposes a protected preference; it stays in manifest and card."""
    train: TrainSettings = Field(default_factory=TrainSettings)

    @model_validator(mode="after")
    def _consistent(self) -> TraitSettings:
        if self.writer.model is None:
            raise ValueError("writer: model is required (base is the model to be trained)")
        if self.opposite is not None and _words(self.opposite) == _words(self.description):
            raise ValueError("opposite says the same as description; what would the pairs teach?")
        return self


def _words(text: str) -> list[str]:
    return sorted(re.findall(r"\w+", text.casefold()))
