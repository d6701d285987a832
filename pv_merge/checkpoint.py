"""Lazy reads of checkpoints: names, shapes and dtypes from headers, tensors one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pv_merge.errors import PvMergeError
from pv_merge.folders import read_json

if TYPE_CHECKING:
    import torch

INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"

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


class Checkpoint:
    """A folder of safetensors, read lazily. Raises ``PvMergeError`` where it is not one."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.exists():
            raise PvMergeError(f"{folder}: no such folder")
        if not self.folder.is_dir():
            raise PvMergeError(f"{folder}: is a file, not a model folder")

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's ``config.json``."""
        path = self.folder / "config.json"
        if not path.exists():
            hint = "; it is an adapter" if (self.folder / ADAPTER_CONFIG).exists() else ""
            raise PvMergeError(f"{self.folder}: holds no config.json, so it is not a model{hint}")
        config: dict[str, Any] = read_json(path)
        return config

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        index = self.folder / INDEX_NAME
        if index.exists():
            names = sorted(set(read_json(index)["weight_map"].values()))
        else:
            names = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not names:
            pickles = list(self.folder.glob("*.bin")) + list(self.folder.glob("*.pth"))
            hint = "; convert its pickled weights to safetensors first" if pickles else ""
            raise PvMergeError(f"{self.folder}: holds no safetensors weights{hint}")
        return [self.folder / name for name in names]

    @cached_property
    def _handles(self) -> dict[Path, Any]:
        from safetensors import SafetensorError, safe_open

        handles = {}
        for path in self.files:
            try:
                handles[path] = safe_open(path, framework="pt")
            except FileNotFoundError:
                raise PvMergeError(f"{path}: missing, though the index names it") from None
            except SafetensorError as error:
                raise PvMergeError(f"{path}: not a whole safetensors file ({error})") from None
        return handles

    @cached_property
    def _places(self) -> dict[str, Any]:
        places: dict[str, Any] = {}
        for handle in self._handles.values():
            places.update(dict.fromkeys(handle.keys(), handle))
        return places

    @property
    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return sorted(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Dtype and shape of every tensor, from the headers alone."""
        found = {}
        for name, handle in self._places.items():
            part = handle.get_slice(name)
            found[name] = TensorInfo(part.get_dtype(), tuple(part.get_shape()))
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
                digest.update(memoryview(tensor.view(-1).view(torch.uint8).numpy()))
            if progress is not None:
                progress(tensor.nbytes)
        return digest.hexdigest()

    def copy_companions(self, target: Path) -> None:
        """Copy tokenizer and generation settings into ``target``."""
        import shutil

        for name in TOKENIZER_FILES:
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, target / name)
