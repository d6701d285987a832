"""A preference vector as a folder: dense, as mergekit reads it, or low-rank, as PEFT and vLLM do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pv_merge.arithmetic.dtypes import dtype_named
from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import new_folder, write_json
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, parse_manifest
from pv_merge.artifacts.reference import without_revision
from pv_merge.artifacts.tensor_files import ShardWriter
from pv_merge.artifacts.vector_changes import VectorChanges
from pv_merge.errors import PvMergeError


def save_vector(vector: VectorChanges, folder: Path, base: str | Path | None, dtype: str) -> None:
    """Write ``vector`` into a new ``folder``; see ``PreferenceVector.save``."""
    named = base or parse_manifest(vector.manifest, vector.preference).made_from.path
    if named is None:
        raise PvMergeError(f"{vector.preference}: its base is not known; say base=FOLDER")
    origin = Checkpoint(named)
    manifest = {**vector.manifest, "kind": "preference_vector", "format": 1}
    manifest |= {"preference": vector.preference, "dtype": dtype}
    manifest.setdefault("base", {"path": str(named)})
    with new_folder(folder) as work:
        if vector.low_rank:
            changes = {name: vector.change(name) for name in vector.names}
            thin = {name: change for name, change in changes.items() if isinstance(change, LowRank)}
            manifest |= {
                "form": "low-rank",
                "rank": write_low_rank(work, thin, origin, without_revision(str(named)), dtype),
            }
        else:
            manifest["form"] = "dense"

            def moved(name: str, weight: Tensor) -> Tensor | None:
                return vector.dense(name) if name in vector else None

            write_dense(work, moved, origin, dtype)
        write_json(work / VECTOR_MANIFEST, manifest)


def write_dense(
    work: Path,
    phi: Callable[[str, Tensor], Tensor | None],
    base: Checkpoint,
    dtype: str,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a dense vector with a tensor for each of the base's, as mergekit asks for.

    ``phi(name, weight)`` returns the change of a weight, or None for none; those are stored as
    zeros in the base's dtype, which is exact and half the size. Integer buffers are copied, since
    mergekit wants them equal in all inputs.
    """
    target = dtype_named(dtype)
    with ShardWriter(work) as writer:
        for done, name in enumerate(base.names, start=1):
            weight = base.tensor(name)
            if not weight.is_floating_point():
                writer.add(name, weight)
            else:
                change = phi(name, weight)
                writer.add(name, torch.zeros_like(weight) if change is None else change.to(target))
            advance(done)
    write_companions(work, base, dtype)


def write_companions(work: Path, base: Checkpoint, dtype: str) -> None:
    """Write what mergekit asks for beside a dense vector's weights: the base's config and tokenizer."""
    config = {**base.config}
    config.pop("torch_dtype", None)
    write_json(work / "config.json", {**config, "dtype": dtype})
    base.copy_companions(work)
