"""Where rows come from: the fields that a training config, and an option, may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class StrictSettings(BaseModel):
    """Settings whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class DatasetSettings(StrictSettings):
    """Where rows come from."""

    path: str
    """A json, jsonl, parquet or csv file (may be gzipped), a folder of them, or a name on the Hub."""
    format: str
    """How the rows are laid out: see ``pv_merge.data.pairs.FORMATS`` for ``pv-train dpo`` and
    ``pv_merge.data.instructions.FORMATS`` for ``pv-train sft``."""
    split: str = "train"
    """Split, with slices if wanted: ``train[:1000]``."""
    name: str | None = None
    """Configuration of a data set on the Hub that has several."""
    data_dir: str | None = None
    """Folder within a data set on the Hub, such as HH-RLHF's ``helpful-base``."""
    revision: str | None = None
    """Git revision of a data set on the Hub."""
    label: str | None = None
    """For ``pku-saferlhf``: ``better_response_id`` (helpful) or ``safer_response_id`` (harmless)."""
    max_rows: Annotated[int, Field(gt=0)] | None = None
    """Keep the first so many rows."""
    max_chars: Annotated[int, Field(gt=0)] | None = None
    """Leave out rows whose prompt plus longer answer has more characters."""


class PairsDataset(DatasetSettings):
    """Where preference pairs come from."""

    format: str = "pairs"
    without: PairsDataset | None = None
    """Leave out rows whose prompt is in these pairs, such as those that a policy was trained on."""


class InstructionDataset(DatasetSettings):
    """Where instruction rows come from."""

    format: str = "instruction"
