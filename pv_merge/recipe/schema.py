"""What may stand in a recipe: the keys, with the types of their values.

Unknown keys are ignored here and reported, with a suggestion, by ``pv_merge.recipe.recipe``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Conditional(BaseModel):
    """A value for the weights whose name contains ``filter`` (for all, without one)."""

    value: float | list[float]
    filter: str | None = None


Number = float | list[float] | Conditional | list[Conditional]
"""A number; a gradient over the layers; or values by filters, the first that matches."""


class InputParameters(BaseModel):
    """What a recipe says of one input."""

    preference: str | None = None
    polarity: str | None = None
    eta: Number | None = None
    density: Number | None = None
    max_relative_norm: Number | None = None


class SharedParameters(BaseModel):
    """What it says for all, with the defaults."""

    sign_consensus: Literal["none", "sum", "count"] = "none"
    interference: Literal["none", "orthogonal"] = "none"
    round_to: Literal["bfloat16", "float16"] | None = None
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    seed: int = 0
    allow_protected_negative: bool = False
    eta: Number | None = None
    density: Number | None = None
    max_relative_norm: Number | None = None


class Input(BaseModel):
    """One input: a model's folder, and its parameters."""

    model: str
    parameters: InputParameters = Field(default_factory=InputParameters)


class Document(BaseModel):
    """A whole recipe."""

    merge_method: Literal["preference_vector"]
    base_model: str
    models: list[Input] = Field(min_length=1)
    parameters: SharedParameters = Field(default_factory=SharedParameters)
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    out_dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    tokenizer_source: str | None = None
    tokenizer: dict[str, Any] | None = None
    chat_template: str | None = None
