"""Lazy reads of checkpoints: names, shapes and dtypes from headers, tensors one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.model_files import ADAPTER_CONFIG, ModelFiles, model_files
from pv_merge.artifacts.reference import local_folder
from pv_merge.artifacts.weights_file import TensorInfo, WeightsFile
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError

if TYPE_CHECKING:
    import numpy as np
    import torch


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


def is_adapter(folder: str | Path) -> bool:
    """Return whether a folder is a PEFT adapter rather than a checkpoint."""
    return (Path(folder) / ADAPTER_CONFIG).exists()


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
        model = read_object(path).get("model") if path.exists() else None
        return model.get("vocab") if isinstance(model, dict) else None

    @cached_property
    def _files(self) -> ModelFiles:
        return model_files(self.folder)

    @property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        return self._files.paths

    @cached_property
    def parts(self) -> list[WeightsFile]:
        """The safetensors files, each with its header."""
        return [WeightsFile(path) for path in self.files]

    @cached_property
    def _places(self) -> dict[str, WeightsFile]:
        return {name: part for part in self.parts for name in part.infos}

    @property
    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return sorted(self.infos)

    def __contains__(self, name: str) -> bool:
        return name in self.infos

    @cached_property
    def infos(self) -> dict[str, TensorInfo]:
        """Dtype and shape of every tensor, from the headers alone (and without torch)."""
        self._files.refuse_other_names(self.parts)
        return {name: info for part in self.parts for name, info in part.infos.items()}

    def float32(self, name: str) -> np.ndarray:
        """Return one weight in float32, without torch."""
        return self._places[name].float32(name)

    def sample(self, name: str, every: int) -> np.ndarray:
        """Return every so manieth value of one weight in float32, (count,), without torch."""
        return self._places[name].sample(name, every)

    def raw(self, name: str) -> np.ndarray:
        """Return one tensor's bytes, memory-mapped, without torch."""
        return self._places[name].raw(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor, memory-mapped, in its stored dtype."""
        return self._places[name].tensor(name)

    @property
    def parameters(self) -> int:
        """Number of stored elements."""
        return sum(info.elements for info in self.infos.values())

    def weights_sha256(self, progress: Callable[[int], None] | None = None) -> str:
        """Return a SHA-256 over names, dtypes, shapes and bytes, whatever the sharding.

        ``progress`` is called with the number of bytes of each tensor as it is hashed.
        """
        from pv_merge.artifacts.byte_ranges import parts_of, ranges

        digest = hashlib.sha256()
        places = ranges(self.parts)
        for name in self.names:
            info = self.infos[name]
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            for part in parts_of(places[name]):
                digest.update(part)
            if progress is not None:
                progress(places[name].nbytes)
        return digest.hexdigest()

    def copy_companions(self, target: Path) -> None:
        """Copy tokenizer and generation settings into ``target``."""
        import shutil

        for name in TOKENIZER_FILES:
            path = self.folder / name
            if path.exists() and not path.is_file():
                raise PvMergeError(f"{path}: is not an ordinary file")
            if path.exists():
                shutil.copy(path, target / name)
