"""Training as functions: what ``pv-train`` does, from a config, printing only its progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trainers.session import Outcome


def train(
    config: str | Path,
    *,
    polarity: Literal["positive", "negative", "both"] = "both",
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> list[Outcome]:
    """Train a preference's policies by DPO, as a YAML config says; return how each went.

    ``overrides`` are settings such as ``"dpo.learning_rate=5e-7"``. Finished policies appear by
    rename as ``output_dir/positive`` and ``output_dir/negative``. Raises ``PvMergeError`` with
    every problem of the config, and for a folder that holds a run unless ``resume``.

    >>> import trainers
    >>> outcomes = trainers.train("train.yml", overrides=["dpo.max_steps=2"])
    >>> [outcome.name for outcome in outcomes]
    ['positive', 'negative']
    """
    from trainers.config_file import read_settings
    from trainers.dpo import train as train_policies
    from trainers.settings import POLARITIES

    chosen = [name for name in POLARITIES if polarity in (name, "both")]
    return train_policies(read_settings(config, tuple(overrides)), chosen, resume)


def train_sft(
    config: str | Path, *, overrides: Sequence[str] = (), resume: bool = False
) -> Outcome:
    """Train a base by supervised fine-tuning, as a YAML config says; return how it went.

    Raises ``PvMergeError`` as ``train`` does.
    """
    from trainers.config_file import read_sft_settings
    from trainers.sft import train_base

    return train_base(read_sft_settings(config, tuple(overrides)), resume)


def train_reward(
    config: str | Path, *, overrides: Sequence[str] = (), resume: bool = False
) -> Outcome:
    """Train a reward model on a preference's pairs, as a YAML config says; return how it went.

    Raises ``PvMergeError`` as ``train`` does.
    """
    from trainers.config_file import read_reward_settings
    from trainers.reward import train_reward as train_model

    return train_model(read_reward_settings(config, tuple(overrides)), resume)
