"""How kernels are compiled: once on a machine, into a cache folder, by Numba."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from pv_merge.arithmetic.kernel_cache import cache_place
from pv_merge.arithmetic.native_check import SAMPLES, digest

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
"""No fast math: nothing is contracted or reordered, so the bits are those of IEEE arithmetic."""

SLOW_SECONDS = 2.0
"""Time after which compiling is worth a line on the screen."""


def say(line: str) -> None:
    """Tell the user something while he waits."""
    print(line, file=sys.stderr, flush=True)


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
                name = self._function.__name__
                native = name in SAMPLES and not (place / f"{name}.refused").exists()
                try:
                    with _cached_in(place):
                        compiled = numba.njit(cache=not native, **OPTIONS)(self._function)
                    compiled.compile(kinds)
                    if native:
                        _keep(compiled, kinds, name, place)
                    return compiled
                except Exception:  # a full disk, or a damaged file: what is compiled needs no cache
                    pass
            compiled = numba.njit(**OPTIONS)(self._function)
            compiled.compile(kinds)
            return compiled


def _keep(compiled: Any, kinds: tuple[Any, ...], name: str, place: Path) -> None:
    """Write a compiled kernel's machine code into ``place``, if another process can use it.

    Where it cannot, or there can be no such process, a file says so, and nobody tries again.
    """
    refused, final = place / f"{name}.refused", place / f"{name}.o"
    module = "pv_merge.arithmetic.native_check"
    result = compiled.overloads[kinds]
    _, form, data = result.library.serialize_using_object_code()
    code = data[0]
    dimensions = [getattr(kind, "ndim", None) for kind in kinds]
    said = {"symbol": result.fndesc.mangled_name, "dimensions": dimensions, "bytes": len(code)}
    temporary = place / f"{name}.{os.getpid()}"
    temporary.write_bytes(json.dumps(said).encode() + b"\n" + code)
    # -P: the current folder may be a stranger's, and nothing is imported from there.
    command = [sys.executable, "-P", "-m", module, str(temporary), name]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        same = told.returncode == 0 and told.stdout.strip() == digest(compiled, name)
    except (OSError, subprocess.SubprocessError):
        same = False
    try:
        if form == "object" and same:
            temporary.replace(final)
        else:
            refused.touch()
    finally:
        temporary.unlink(missing_ok=True)


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
