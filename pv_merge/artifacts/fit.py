"""Checks that need the headers of checkpoints only: names, shapes, vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError


def compare_headers(base: str, folders: Sequence[str]) -> None:
    """Raise ``PvMergeError`` where a local folder's tensors differ in shape from the base's."""
    if not Path(base).is_dir():
        return
    reference = Checkpoint(base)
    for folder in folders:
        if Path(folder).is_dir():
            problems = shape_problems(reference, Checkpoint(folder))
            if problems:
                raise PvMergeError(problems[0])


def shape_problems(base: Checkpoint, other: Checkpoint) -> list[str]:
    """Return one line for each tensor whose shape differs between base and ``other``."""
    problems = []
    for name, info in base.infos.items():
        if name not in other:
            continue
        shape = other.infos[name].shape
        if shape == info.shape:
            continue
        if shape[1:] == info.shape[1:] and shape and info.shape:
            said = f"{shape[0]} rows in {name}, the base {info.shape[0]}"
            cause = (
                "does its tokenizer have other tokens?"
                if "embed" in name or "head" in name
                else "were both trained from it?"
            )
        else:
            said = f"shape {list(shape)} in {name}, the base {list(info.shape)}"
            cause = "were both trained from it?"
        problems.append(f"{other}: has {said} ({base}); {cause}")
    return problems
