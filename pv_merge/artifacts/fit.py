"""Checks that need the headers of checkpoints only: names, shapes, vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pv_merge.arithmetic.stored import SIZES
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.quantized.formats import quantization, quantized_problem
from pv_merge.errors import PvMergeError


def compare_headers(base: str, folders: Sequence[str]) -> None:
    """Raise ``PvMergeError`` where a local folder's tensors differ in shape or kind from the base's."""
    if not Path(base).is_dir():
        return
    reference = Checkpoint(base)
    for folder in folders:
        if Path(folder).is_dir():
            other = Checkpoint(folder)
            problems = shape_problems(reference, other) + kind_problems(reference, other)
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


def kind_problems(base: Checkpoint, other: Checkpoint) -> list[str]:
    """Return a line if there are tensors that are no floats, unless they are equal buffers.

    Integers and booleans are not numbers to subtract (masks, positions, quantized weights), so
    they are only taken where base and ``other`` have the same.
    """
    found = []
    for name, info in base.infos.items():
        if name not in other or (info.floating and other.infos[name].floating):
            continue
        theirs = other.infos[name]
        if (info.dtype, info.shape) != (theirs.dtype, theirs.shape):
            found.append(
                f"{other}: stores {name} as {theirs.dtype}, the base {base} as {info.dtype}; only "
                "floats are merged, whole numbers are no weights (is one of them quantized?)"
            )
        elif not _equal_bytes(base, other, name):
            found.append(
                f"{other}: the buffer {name} differs from the base's, and {info.dtype} is not merged"
            )
    return found[:1]


def unmergeable(base: Checkpoint) -> list[str]:
    """Return a line if the base is quantized, or stores weights in a dtype that is no number's."""
    found = quantization(base.config) if (base.folder / "config.json").exists() else None
    if found is not None:
        return [quantized_problem(base, found)]
    names = [name for name, info in base.infos.items() if info.dtype not in SIZES]
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [
        f"{base}: stores {names[0]}{more} as {base.infos[names[0]].dtype}, which cannot be merged; name "
        "the model before it was quantized"
    ]


def _equal_bytes(base: Checkpoint, other: Checkpoint, name: str) -> bool:
    return base.raw(name).tobytes() == other.raw(name).tobytes()
