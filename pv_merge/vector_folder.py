"""A preference vector as a folder: dense, as mergekit reads it, or low-rank, as PEFT and vLLM do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from pv_merge.adapter import LowRank, peft_config, peft_tensors
from pv_merge.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Checkpoint
from pv_merge.errors import PvMergeError, did_you_mean
from pv_merge.folders import VECTOR_MANIFEST, new_folder, write_json
from pv_merge.shards import TORCH_DTYPES, ShardWriter
from pv_merge.vector import PreferenceVector


def dtype_named(name: str) -> torch.dtype:
    """Return the floating-point dtype of that name."""
    if name not in TORCH_DTYPES:
        raise PvMergeError(f"unknown dtype {name!r}{did_you_mean(name, TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


def save_vector(
    vector: PreferenceVector, folder: Path, base: str | Path | None, dtype: str
) -> None:
    """Write ``vector`` into a new ``folder``; see ``PreferenceVector.save``."""
    named = base or (vector.manifest.get("base") or {}).get("path")
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
                "rank": write_low_rank(work, thin, origin, str(named), dtype),
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
    config = {**base.config}
    config.pop("torch_dtype", None)
    write_json(work / "config.json", {**config, "dtype": dtype})
    base.copy_companions(work)


def write_low_rank(
    work: Path, changes: dict[str, LowRank], base: Checkpoint, base_name: str, dtype: str
) -> int:
    """Write an adapter that PEFT and vLLM load as it is, and return its rank.

    All modules get one rank, the largest, padded with zeros, and scale 1, since vLLM knows neither
    a rank nor a scale of each module's own.
    """
    from safetensors.torch import save_file

    rank = max(change.a.shape[0] for change in changes.values())
    transposed = stores_transposed(base)
    held = {
        name: change if change.embedding else change.stored(transposed)
        for name, change in changes.items()
    }
    tensors = peft_tensors(held, rank, dtype_named(dtype))
    save_file(tensors, work / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = peft_config(rank, base_name, target_modules(changes, base), transposed)
    write_json(work / ADAPTER_CONFIG, config)
    return rank


def stores_transposed(base: Checkpoint) -> bool:
    """Return whether the model's linear layers are Conv1D, which store their weight as (in, out)."""
    return base.config.get("model_type") in ("gpt2", "openai-gpt")


def target_modules(names: Iterable[str], base: Checkpoint) -> list[str]:
    """Return the modules as PEFT wants them: last names if those mean just these, else in full."""
    modules = {name.removesuffix(".weight") for name in names}
    leaves = {module.rpartition(".")[2] for module in modules}
    meant = {
        name.removesuffix(".weight")
        for name in base.names
        if name.endswith(".weight") and name.removesuffix(".weight").rpartition(".")[2] in leaves
    }
    return sorted(leaves if meant == modules else modules)
