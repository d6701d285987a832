"""Which files hold a model's weights, as transformers would load them, and what their headers say."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from pv_merge.data.documents import read_object, validated
from pv_merge.errors import PvMergeError, os_errors

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' names of the dtypes that are merged."""


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor."""

    dtype: str
    """safetensors' name of the dtype, such as ``BF16``."""
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Whether it is a weight that can be merged, rather than a buffer or quantized."""
        return self.dtype in FLOATS


class _Index(BaseModel):
    weight_map: dict[str, str] = Field(min_length=1)


class WeightFiles(NamedTuple):
    """The files, and what the index says of them, where there is one."""

    paths: list[Path]
    listed: dict[str, str] | None
    """The name of the file by the name of the tensor."""


def weight_files(folder: Path) -> WeightFiles:
    """Return the files that transformers would load from a model's folder (or PEFT from an adapter's).

    That is ``model.safetensors``, else what the index names. Raises ``PvMergeError`` where that is
    ambiguous: both, if they differ, or other files and no index.
    """
    single, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    if index.exists():
        weight_map = _read_index(index)
        names = sorted(set(weight_map.values()))
        if single.exists() and names != [WEIGHTS_NAME]:
            raise PvMergeError(
                f"{folder}: holds {WEIGHTS_NAME}, and an index of other files; transformers loads the "
                "one and mergekit the others, so remove one of them"
            )
        return WeightFiles([folder / name for name in names], weight_map)
    for path in (single, folder / ADAPTER_WEIGHTS):
        if path.exists():
            return WeightFiles([path], None)
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if found:
        raise PvMergeError(
            f"{folder}: holds {', '.join(found[:3])}{' …' if len(found) > 3 else ''}, but neither "
            f"{WEIGHTS_NAME} nor {INDEX_NAME}, so transformers would load none of it; was the copy "
            "cut short?"
        )
    pickles = list(folder.glob("*.bin")) + list(folder.glob("*.pth"))
    hint = "; convert its pickled weights to safetensors first" if pickles else ""
    raise PvMergeError(f"{folder}: holds no safetensors weights{hint}")


def _read_index(path: Path) -> dict[str, str]:
    weight_map = validated(_Index, read_object(path), path).weight_map
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise PvMergeError(
                f"{path}: names the file {name!r}; only safetensors files beside it are read"
            )
        if not (path.parent / name).exists():
            raise PvMergeError(f"{path.parent / name}: missing, though the index names it")
    return weight_map


def read_all_infos(files: WeightFiles) -> dict[str, TensorInfo]:
    """Return dtype and shape of every tensor of a model, from the headers alone (and without torch).

    Raises ``PvMergeError`` where the files and their index disagree.
    """
    found: dict[str, TensorInfo] = {}
    held: dict[str, str] = {}
    for path in files.paths:
        for name, info in read_infos(path).items():
            if name in found:
                raise PvMergeError(f"{path}: holds {name}, as does {held[name]} beside it")
            found[name], held[name] = info, path.name
    if files.listed is not None and files.listed != held:
        name = min(
            name for name in {*files.listed, *held} if files.listed.get(name) != held.get(name)
        )
        said = f"in {files.listed[name]}" if name in files.listed else "nowhere"
        real = f"in {held[name]}" if name in held else "in none of its files"
        raise PvMergeError(
            f"{files.paths[0].parent / INDEX_NAME}: lists {name} {said}, but it is {real}; are the "
            "files and the index of one model?"
        )
    return found


def read_infos(path: Path) -> dict[str, TensorInfo]:
    """Return dtype and shape of every tensor of one file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with os_errors(path, "read"):
            if not stat.S_ISREG(path.stat().st_mode):
                raise PvMergeError(f"{path}: is not an ordinary file")
            with safe_open(path, framework="np") as file:
                parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                return {
                    name: TensorInfo(part.get_dtype(), tuple(part.get_shape()))
                    for name, part in parts.items()
                }
    except SafetensorError as error:
        raise PvMergeError(f"{path}: not a whole safetensors file ({error})") from None
