"""How kernels are compiled: once on a machine, into a cache folder, by Numba.

Numba's own cache knows a kernel by its file's date and size and does not see changes of what the
kernel calls. Here the folder's name is a hash of all the kernels' sources, so that a kernel of
another version is never run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from pv_merge.cache import cache_folder

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
"""No fast math: nothing is contracted or reordered, so the bits are those of IEEE arithmetic."""

SLOW_SECONDS = 2.0
"""Time after which compiling is worth a line on the screen."""

SOURCES = (
    "compiling.py",
    *(f"kernel_{part}.py" for part in ("report", "rounding", "rows", "shape", "sums")),
    "kernels.py",
)


def say(line: str) -> None:
    """Tell the user something while he waits."""
    print(line, file=sys.stderr, flush=True)


@lru_cache(maxsize=1)
def cache_place() -> Path | None:
    """Return a folder for compiled kernels that can be written; None if there is no such place."""
    digest = hashlib.sha256(numba.__version__.encode())
    here = Path(__file__).parent
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    label = f"kernels-{digest.hexdigest()[:16]}"
    named = os.environ.get("NUMBA_CACHE_DIR")
    try:
        roots = [Path(named)] if named else [cache_folder()]
    except RuntimeError:  # a user without a home
        roots = []
    for root in [*roots, here / "__pycache__"]:
        try:
            (root / label).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / label):
                return root / label
        except OSError:
            continue
    return None


class Kernel:
    """A function that is compiled when it is first called, or loaded from the cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Any = None
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        """Run it. The types of the arguments are those of its first call, always."""
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    self._compiled = self._prepare(arguments)
        return self._compiled(*arguments)

    def _prepare(self, arguments: tuple[Any, ...]) -> Any:
        kinds = tuple(numba.typeof(argument) for argument in arguments)
        place = cache_place()
        with _told_when_slow():
            if place is not None:
                try:
                    with _cached_in(place):
                        compiled = numba.njit(cache=True, **OPTIONS)(self._function)
                    compiled.compile(kinds)
                    return compiled
                except Exception:  # a full disk, or a damaged file: what is compiled needs no cache
                    pass
            compiled = numba.njit(**OPTIONS)(self._function)
            compiled.compile(kinds)
            return compiled


@contextmanager
def _cached_in(place: Path) -> Iterator[None]:
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(place)
    try:
        yield
    finally:
        config.CACHE_DIR = before


@contextmanager
def _told_when_slow() -> Iterator[None]:
    line = "compiling the merge's kernels for this machine (once; a few seconds)"
    timer = threading.Timer(SLOW_SECONDS, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def part_of_kernels(function: Callable[..., Any]) -> Any:
    """Compile what kernels call; it becomes part of each."""
    return numba.njit(**OPTIONS)(function)


def reordered_sum(function: Callable[..., Any]) -> Any:
    """The same for sums whose last digits do not matter: added up in any order, by vectors."""
    return numba.njit(fastmath={"reassoc", "contract"}, **OPTIONS)(function)


def _pointer(element: Any) -> Any:
    """Return a function of kernels that makes an address a pointer to elements of that type."""

    @intrinsic
    def at(typingctx: Any, address: Any) -> Any:
        signature = types.CPointer(element)(types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    return at


f32_at = _pointer(types.float32)
f64_at = _pointer(types.float64)
u32_at = _pointer(types.uint32)
u16_at = _pointer(types.uint16)
i64_at = _pointer(types.int64)
