"""Lazy reads of checkpoints: names, shapes and dtypes from headers, tensors one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pv_merge.artifacts.reference import local_folder
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError

if TYPE_CHECKING:
    import torch

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor."""

    dtype: str
    """safetensors' name of the dtype, such as ``BF16``."""
    shape: tuple[int, ...]


def is_adapter(folder: str | Path) -> bool:
    """Return whether a folder is a PEFT adapter rather than a checkpoint."""
    return (Path(folder) / ADAPTER_CONFIG).exists()


def read_infos(path: Path) -> dict[str, TensorInfo]:
    """Return dtype and shape of every tensor of one file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: TensorInfo(part.get_dtype(), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except FileNotFoundError:
        raise PvMergeError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise PvMergeError(f"{path}: not a whole safetensors file ({error})") from None


class Checkpoint:
    """A folder of safetensors, read lazily. Raises ``PvMergeError`` where it is not one.

    A name on the Hub, ``NAMESPACE/NAME@REVISION``, means the folder that holds it in the Hub's
    cache, where it is downloaded to if need be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        self.folder = local_folder(folder)
        if not self.folder.exists():
            raise PvMergeError(f"{folder}: no such folder")
        if not self.folder.is_dir():
            raise PvMergeError(f"{folder}: is a file, not a model folder")

    def __str__(self) -> str:
        return self.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's ``config.json``."""
        path = self.folder / "config.json"
        if not path.exists():
            hint = "; it is an adapter" if (self.folder / ADAPTER_CONFIG).exists() else ""
            raise PvMergeError(f"{self.folder}: holds no config.json, so it is not a model{hint}")
        config: dict[str, Any] = read_object(path)
        return config

    @cached_property
    def vocabulary(self) -> object | None:
        """The vocabulary in ``tokenizer.json``, or None where there is none."""
        path = self.folder / "tokenizer.json"
        return read_object(path).get("model", {}).get("vocab") if path.exists() else None

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        index = self.folder / INDEX_NAME
        if index.exists():
            names = sorted(set(read_object(index)["weight_map"].values()))
        else:
            names = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not names:
            pickles = list(self.folder.glob("*.bin")) + list(self.folder.glob("*.pth"))
            hint = "; convert its pickled weights to safetensors first" if pickles else ""
            raise PvMergeError(f"{self.folder}: holds no safetensors weights{hint}")
        return [self.folder / name for name in names]

    @cached_property
    def _places(self) -> dict[str, Any]:
        from safetensors import safe_open

        _ = self.infos  # every file is there and whole
        places: dict[str, Any] = {}
        for path in self.files:
            handle = safe_open(path, framework="pt")
            places.update(dict.fromkeys(handle.keys(), handle))
        return places

    @property
    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return sorted(self.infos)

    def __contains__(self, name: str) -> bool:
        return name in self.infos

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Dtype and shape of every tensor, from the headers alone (and without torch)."""
        found: dict[str, TensorInfo] = {}
        for path in self.files:
            if not path.exists():
                raise PvMergeError(f"{path}: missing, though the index names it")
            found |= read_infos(path)
        return found

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor, memory-mapped, in its stored dtype."""
        tensor: torch.Tensor = self._places[name].get_tensor(name)
        return tensor

    @property
    def parameters(self) -> int:
        """Number of stored elements."""
        total = 0
        for info in self.infos.values():
            size = 1
            for extent in info.shape:
                size *= extent
            total += size
        return total

    def weights_sha256(self, progress: Callable[[int], None] | None = None) -> str:
        """Return a SHA-256 over names, dtypes, shapes and bytes, whatever the sharding.

        ``progress`` is called with the number of bytes of each tensor as it is hashed.
        """
        import torch

        digest = hashlib.sha256()
        for name in self.names:
            info = self.infos[name]
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            tensor = self.tensor(name).contiguous()
            if tensor.numel():
                digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
            if progress is not None:
                progress(tensor.nbytes)
        return digest.hexdigest()

    def copy_companions(self, target: Path) -> None:
        """Copy tokenizer and generation settings into ``target``."""
        import shutil

        for name in TOKENIZER_FILES:
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, target / name)
