"""Which files of a folder hold the model's weights, as transformers would load them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from pv_merge.artifacts.weights_file import WeightsFile
from pv_merge.data.documents import read_object, validated
from pv_merge.errors import PvMergeError, os_errors

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class _Index(BaseModel):
    weight_map: dict[str, str] = Field(min_length=1)


class ModelFiles(NamedTuple):
    """The files, and what the index says of them, where there is one."""

    paths: list[Path]
    listed: dict[str, str] | None
    """The name of the file by the name of the tensor."""

    def refuse_other_names(self, parts: list[WeightsFile]) -> None:
        """Raise ``PvMergeError`` where the files' headers and their index disagree, or two of them."""
        held: dict[str, str] = {}
        for part in parts:
            for name in part.infos:
                if name in held:
                    raise PvMergeError(f"{part.path}: holds {name}, as does {held[name]} beside it")
                held[name] = part.path.name
        if self.listed is None or self.listed == held:
            return
        listed = self.listed
        name = min(name for name in {*listed, *held} if listed.get(name) != held.get(name))
        said = f"in {listed[name]}" if name in listed else "nowhere"
        real = f"in {held[name]}" if name in held else "in none of its files"
        raise PvMergeError(
            f"{self.paths[0].parent / INDEX_NAME}: lists {name} {said}, but it is {real}; are the "
            "files and the index of one model?"
        )


def model_files(folder: Path) -> ModelFiles:
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
        return ModelFiles([folder / name for name in names], weight_map)
    for path in (single, folder / ADAPTER_WEIGHTS):
        if path.exists():
            return ModelFiles([path], None)
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
        with os_errors(path.parent / name, "read"):
            there = (path.parent / name).exists()
        if not there:
            raise PvMergeError(f"{path.parent / name}: missing, though the index names it")
    return weight_map
