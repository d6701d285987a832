"""A quantized checkpoint as an ordinary one: unpacked module by module, in one pass over its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.arithmetic.stored import SIZES
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.quantized.formats import Quantization, quantization, require
from pv_merge.artifacts.quantized.unpacking import unpacker
from pv_merge.artifacts.tensor_files import ShardWriter
from pv_merge.artifacts.weights_file import TensorInfo
from pv_merge.cache import cache_folder
from pv_merge.errors import PvMergeError, Topic

if TYPE_CHECKING:
    from torch import Tensor

PACKED = frozenset(
    {
        "qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_zero_point",
        "weight_shape", "weight_g_idx", "weight_global_scale", "weight_scale_inv", "input_scale",
        "input_zero_point", "input_global_scale", "output_scale", "output_zero_point",
        "activation_scale",
    }
)  # fmt: skip
"""Last parts of the names of tensors that describe a quantized weight."""
OF_THE_CACHE = frozenset({"k_scale", "v_scale", "q_scale", "prob_scale"})
"""Last parts of those that describe an engine's cache; a model in full precision has none."""
NARROW = ("F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "F6_E3M2")

Advance = Callable[[int, int], None]


def dequantize(
    model: str | Path,
    output: str | Path,
    dtype: str = "bfloat16",
    advance: Advance = lambda done, total: None,
) -> None:
    """Write the weights of a quantized checkpoint in full into a new folder.

    Each module is unpacked by its format's library; what is not quantized is converted to ``dtype``.
    ``advance`` is told (weights done, weights in all). Raises ``PvMergeError`` for a model that is
    not quantized, a format that is not known, and weights without their scales.
    """
    source = Checkpoint(model)
    found = quantization(source.config)
    if found is None:
        raise PvMergeError(f"{model}: is not quantized; its config has no quantization_config")
    require(found, model)
    refuse_existing(Path(output), apart_from=[source.folder])
    with new_folder(Path(output)) as work:
        _write(source, found, work, dtype, advance)


def unpacked_copy(source: Checkpoint, advance: Advance = lambda done, total: None) -> Checkpoint:
    """Return a quantized checkpoint's weights in bfloat16, from the cache or written there."""
    place = cached_place(source)
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        dequantize(source.folder, place, advance=advance)
    return Checkpoint(place)


def cached_place(source: Checkpoint) -> Path:
    """Return where the copy of a checkpoint is, or would be; another file is another copy."""
    state = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in source.files
    ]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    return cache_folder() / "dequantized" / key


def _write(
    source: Checkpoint, found: Quantization, work: Path, dtype: str, advance: Advance
) -> None:
    from pv_merge.arithmetic.dtypes import (
        dtype_named,
    )  # torch, which a recipe without does not need

    target = dtype_named(dtype)
    unpack = unpacker(found, source.folder, target)
    read = _Reader(source)
    groups = dict(_groups(source))
    with ShardWriter(work) as writer:
        for done, (name, parts) in enumerate(groups.items(), start=1):
            if parts is not None:
                writer.add(f"{name}.weight", unpack(name, {part: read(part) for part in parts}))
            else:
                tensor = read(name)
                writer.add(name, tensor.to(target) if tensor.is_floating_point() else tensor)
            advance(done, len(groups))
    config: dict[str, Any] = {**source.config}
    for key in ("quantization_config", "compression_config", "torch_dtype"):
        config.pop(key, None)
    write_json(work / "config.json", {**config, "dtype": dtype})
    source.copy_companions(work)


def _groups(source: Checkpoint) -> Iterator[tuple[str, list[str] | None]]:
    """Yield (module, its tensors) for what is quantized, and (tensor, None) for the rest."""
    modules: dict[str, list[str]] = {}
    for name in source.names:
        module, _, leaf = name.rpartition(".")
        if leaf in PACKED:
            modules.setdefault(module, []).append(name)
    for name in source.names:
        module, _, leaf = name.rpartition(".")
        if leaf in OF_THE_CACHE or leaf in PACKED:
            continue
        if module in modules and leaf == "weight":
            modules[module].append(name)
            continue
        _refuse_bare(source, name, source.infos[name])
        yield name, None
    for module, names in sorted(modules.items()):
        described = {name.rpartition(".")[2] for name in names}
        if not described & {"weight", "qweight", "weight_packed"}:
            raise PvMergeError(
                f"{source}: {module} has {', '.join(sorted(described))} and no weight; is the file whole?",
                Topic.DTYPE,
            )
        yield module, names


def _refuse_bare(source: Checkpoint, name: str, info: TensorInfo) -> None:
    """Raise ``PvMergeError`` for a quantized tensor that nothing describes."""
    bare = info.dtype in NARROW or info.dtype not in SIZES
    if bare or (info.dtype in ("I8", "U8", "I32") and name.endswith(".weight")):
        raise PvMergeError(
            f"{source}: {name} is stored as {info.dtype} and has no scale; is the file whole?",
            Topic.DTYPE,
        )


class _Reader:
    """Reads tensors of any dtype, by the library."""

    def __init__(self, source: Checkpoint) -> None:
        from safetensors import safe_open

        self._files = {part.path: safe_open(part.path, framework="pt") for part in source.parts}
        self._places = {name: part.path for part in source.parts for name in part.infos}

    def __call__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[self._places[name]].get_tensor(name)
        return tensor
