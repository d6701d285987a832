"""Gives the engine's worker an adapter back that the cache on disk has dropped.

vLLM asks the resolver once for each name. Afterwards its worker loads the adapter from its path
whenever it is not among the ``--max-cpu-loras`` in memory, in the middle of a step, where a missing
folder would stop the whole engine. vLLM calls plugins in its worker processes too, so there we wrap
the one method that loads an adapter: if the folder is gone, the same adapter is made again from the
shelf, which is still there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from pv_merge.integrations.mixes.name import parse
from pv_merge.integrations.mixes.shelf import Shelf, serving_folder

MODULE = "vllm.lora.worker_manager"
CLASS, METHOD = "WorkerLoRAManager", "_load_adapter"

log = logging.getLogger("vllm.pv_merge")


def activate() -> None:
    """Wrap the engine's method now, or as soon as its module is imported, which is none of ours."""
    if MODULE in sys.modules:
        wrap_loader()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def wrap_loader() -> None:
    """Wrap ``WorkerLoRAManager._load_adapter``, once; one line in the log if it is not there."""
    try:
        manager = getattr(sys.modules[MODULE], CLASS)
        original = getattr(manager, METHOD)
        if not hasattr(original, "pv_merge"):
            setattr(manager, METHOD, wrapped(original))
    except Exception as error:
        log.warning("pv-merge: mixes cannot be loaded again once the cache drops them: %s", error)


class _Finder(MetaPathFinder):
    """Finds the engine's module as usual, and wraps its method once it has run."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                wrap_loader()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def can_restore() -> bool:
    """Return whether this engine has the method, so that the cache may drop adapters."""
    try:
        manager = getattr(importlib.import_module(MODULE), CLASS)
        return hasattr(getattr(manager, METHOD), "pv_merge")
    except Exception:
        return False


def wrapped(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return ``original(manager, request)`` that restores a mix whose folder cannot be loaded."""

    @wraps(original)
    def load(manager: Any, request: Any) -> Any:
        folder = Path(request.lora_path)
        if not is_ours(folder):
            return original(manager, request)
        shelf = None
        with contextlib.suppress(Exception):
            shelf = open_shelf(folder.parents[1])
        if shelf is None or folder.is_dir():
            try:
                return original(manager, request)
            except Exception:
                if shelf is None or folder.is_dir():
                    raise  # it was not dropped meanwhile: the adapter itself does not fit
        return _load_again(original, manager, request, shelf)

    load.pv_merge = True  # type: ignore[attr-defined]
    return load


def is_ours(folder: Path) -> bool:
    """Return whether an adapter's path is that of a mix in the cache folder."""
    return folder.parent.name == "mixes" and folder.parents[2] == serving_folder()


@lru_cache(maxsize=8)
def open_shelf(folder: Path) -> Shelf:
    """Return the shelf with its vectors mapped, so that they stay when the files go."""
    shelf = Shelf(folder)
    _ = shelf.adapters
    return shelf


def _load_again(
    original: Callable[[Any, Any], Any], manager: Any, request: Any, shelf: Shelf
) -> Any:
    from pv_merge.integrations.mixes.adapter import write_mix

    terms = parse(request.lora_name)
    if shelf.key(terms) != Path(request.lora_path).name:
        raise ValueError(f"{request.lora_path} is not the mix {request.lora_name}")
    with _temporary_folder(shelf.folder) as folder:
        write_mix(shelf, terms, folder)
        again = type(request)(request.lora_name, request.lora_int_id, str(folder))
        result = original(manager, again)
    log.info("pv-merge: made %s again, which the cache had dropped", request.lora_name)
    return result


@contextlib.contextmanager
def _temporary_folder(inside: Path) -> Iterator[Path]:
    """Yield a folder that ends with the block, elsewhere if the cache folder is gone."""
    place = str(inside) if inside.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".restored-", dir=place) as folder:
        yield Path(folder)
