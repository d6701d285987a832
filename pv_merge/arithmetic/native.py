"""Kernels as machine code from the cache, called without Numba, whose import outlasts a small merge.

Numba compiles a kernel once on a machine (``pv_merge.arithmetic.compiling``). What it made is kept
as an object file, which LLVM's linker loads in milliseconds; before it is kept, a process of its own
loads it and must find the same bits (``pv_merge.arithmetic.native_check``). Arguments go by Numba's
calling convention: an array as its owner, its parent, its size, its width, its address, its shape
and its strides.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from llvmlite import binding as llvm

from pv_merge.arithmetic.kernel_cache import cache_place

Argument = int | np.ndarray
Call = Callable[..., None]

_FINE = (0, -2)
"""What a kernel returns that has nothing to return."""
_CALLED = ("memset", "memcpy", "memmove")
"""What a kernel calls of the C library."""
_NEVER_CALLED = (
    "_Py_NoneStruct",
    "NRT_Free",
    "NRT_MemInfo_call_dtor",
    "NRT_adapt_ndarray_from_python",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)
"""What Numba's wrappers around a kernel name. They are not used here, but the linker wants addresses."""


_one_at_a_time = threading.Lock()
"""LLVM's linker is not made for several threads."""


class Native:
    """A kernel by its name: its machine code from the cache, or else compiled by Numba."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._call: Call | None = None

    def __call__(self, *arguments: Argument) -> None:
        """Run it, outside the interpreter's lock."""
        if self._call is None:
            with _one_at_a_time:
                self._call = self._call or self._found()
        self._call(*arguments)

    def _found(self) -> Call:
        place = cache_place()
        if place is not None:
            try:
                return load(place / f"{self._name}.o")
            except (OSError, ValueError, KeyError, RuntimeError):
                pass  # not there yet, or damaged: it is compiled anew
        compiled: Call = getattr(import_module("pv_merge.arithmetic.kernels"), self._name)
        return compiled


merge_window = Native("merge_window")
survey_window = Native("survey_window")


def load(path: Path) -> Call:
    """Return the function in an object file that ``keep`` wrote.

    Raises ``OSError`` where there is none, ``ValueError``, ``KeyError`` or ``RuntimeError`` where it
    is damaged.
    """
    content = path.read_bytes()
    head, _, code = content.partition(b"\n")
    said = json.loads(head)
    if len(code) != said["bytes"]:
        raise ValueError(f"{path}: is cut short")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    nothing = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value
    library = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
    for name in _CALLED:
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    for name in _NEVER_CALLED:
        if not llvm.address_of_symbol(name):
            llvm.add_symbol(name, nothing)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(said["symbol"])
    if not address:
        raise ValueError(f"{path}: holds no {said['symbol']}")
    return _caller(address, said["dimensions"], (engine, code))


def _caller(address: int, dimensions: Sequence[int | None], held: object) -> Call:
    """Return a function that calls ``address`` with whole numbers (None) and arrays (dimensions).

    ``held`` is what must not be freed as long as it may be called.
    """
    width = sum(1 if count is None else 5 + 2 * count for count in dimensions)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * (2 + width))(address)

    def call(*arguments: Argument) -> None:
        result = (ctypes.c_int64 * 2)()  # a place for the result, and one for an error
        here = ctypes.addressof(result)
        words = [here, here + 8]
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                data = argument.ctypes.data
                words += [0, 0, argument.size, argument.itemsize, data]
                words += [*argument.shape, *argument.strides]
            else:
                words.append(int(argument))
        status = function(*words)
        if status not in _FINE:
            raise RuntimeError(f"a kernel of {held} ended with {status}")

    return call
