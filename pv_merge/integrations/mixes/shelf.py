"""The server's own copy of its vectors, in the cache folder, by the hash of what they hold.

``CACHE/serving/SHELF/vectors/NAME/`` are the vectors as they were when the first mix was asked for,
and ``CACHE/serving/SHELF/mixes/KEY/`` the adapters made of them (``pv_merge.integrations.mixes.cache``). SHELF
is the hash of all vectors and KEY that of a mix of them, so that one path never holds two contents:
the engine keys its prefix cache by name and path. Since the copy does not change, the worker can
make an adapter again that the cache has dropped, whatever happens to the folder of vectors.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pv_merge.cache import cache_folder
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.integrations.mixes.vectors import ServedVector

if TYPE_CHECKING:
    from pv_merge.artifacts.adapter import Adapter
    from pv_merge.integrations.mixes.name import Terms

INDEX = "shelf.json"

_in_use: dict[Path, Any] = {}
"""Locked files of the shelves that this process serves from; they end with the process."""


def serving_folder() -> Path:
    """Return the folder that holds every shelf."""
    return cache_folder().absolute() / "serving"


class Shelf:
    """A copy of the vectors that one or more servers offer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = read_object(folder / INDEX)
        self.dtype: str = index["dtype"]
        self.hashes: dict[str, str] = index["vectors"]

    @property
    def mixes(self) -> Path:
        """The folder of the adapters made of these vectors."""
        return self.folder / "mixes"

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Every vector; its tensors are mapped from the copy, so that they outlive its files."""
        from pv_merge.artifacts.adapter import Adapter

        found = {name: Adapter(self.folder / "vectors" / name) for name in sorted(self.hashes)}
        for adapter in found.values():
            _ = adapter.modules
        return found

    def key(self, terms: Terms) -> str:
        """Return the name of the folder of a mix: a hash of what it is made of."""
        parts = [[self.hashes[name], str(eta.normalize())] for name, eta in terms if eta]
        return _digest(json.dumps(["mix", 1, self.dtype, sorted(parts)]))

    def place(self, terms: Terms) -> Path:
        """Return where the adapter of a mix is, or will be."""
        return self.mixes / self.key(terms)


def fill(vectors: Mapping[str, ServedVector], dtype: str) -> Shelf:
    """Copy the vectors unless the same are there already; drop shelves that no server uses."""
    root = serving_folder()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(root / "lock"):
        hashes = {name: _file_hash(vector.folder) for name, vector in sorted(vectors.items())}
        index = {"dtype": dtype, "vectors": hashes}
        folder = root / _digest(json.dumps(["shelf", 1, index]))
        if not (folder / INDEX).exists():
            _copy(vectors, folder)
            if {name: _file_hash(folder / "vectors" / name) for name in hashes} != hashes:
                shutil.rmtree(folder, ignore_errors=True)
                raise PvMergeError("the vectors changed while they were copied; ask again")
            write_json(folder / INDEX, index)
        _use(folder)
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                _drop_unused(other)
    return Shelf(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, against other threads and other processes alike."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(vectors: Mapping[str, ServedVector], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mixes").mkdir(parents=True)
    for name, vector in vectors.items():
        target = folder / "vectors" / name
        target.mkdir(parents=True)
        for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(vector.folder / file, target / file)


def _use(folder: Path) -> None:
    if folder not in _in_use:
        file = (folder / "in-use").open("a")
        fcntl.flock(file, fcntl.LOCK_SH)
        _in_use[folder] = file


def _drop_unused(folder: Path) -> None:
    try:
        with (folder / "in-use").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # a server uses it


def _file_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        with (folder / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
