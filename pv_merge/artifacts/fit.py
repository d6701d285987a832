"""Checks that need the headers of checkpoints only: names, shapes, vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pv_merge.artifacts.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Checkpoint, read_infos
from pv_merge.data.documents import read_object
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


def adapter_problems(folder: Path, base: Checkpoint) -> list[str]:
    """Return one line for each adapted module that the base lacks or has in another shape."""
    infos = read_infos(folder / ADAPTER_WEIGHTS)
    flipped = bool(read_object(folder / ADAPTER_CONFIG).get("fan_in_fan_out"))
    found = []
    for key, info in sorted(infos.items()):
        if not key.endswith((".lora_B.weight", ".lora_embedding_B")):
            continue
        module = key.removeprefix("base_model.model.").rpartition(".lora_")[0]
        name = f"{module}.weight"
        if ".experts" in module and name not in base:
            found.append(
                f"{folder}: adapts the fused experts {module.removesuffix('.base_layer')}, which the "
                f"base {base} stores one by one; merge the adapter into a checkpoint first"
            )
            break
        if name not in base:
            found.append(
                f"{folder}: adapts {module}, which the base {base} does not have as a weight of its "
                "own; is it tied, or was the adapter trained from another base?"
            )
            break
        embedding = "lora_embedding" in key
        columns = infos[
            key.replace("lora_embedding_B", "lora_embedding_A")
            if embedding
            else key.replace("lora_B", "lora_A")
        ].shape[1]
        shape = (info.shape[0], columns)
        if embedding or flipped:
            shape = shape[::-1]
        if shape != base.infos[name].shape:
            found.append(
                f"{folder}: adapts {name} as {list(shape)}, the base {base} has "
                f"{list(base.infos[name].shape)}; was it trained from another base?"
            )
    return found
