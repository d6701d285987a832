"""What kernels are given: tensors as addresses, and what a recipe says, ready for them.

Nothing here needs torch.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pv_merge.arithmetic.kernel_shape import ROW, SCRATCH_ROWS
from pv_merge.arithmetic.noise import BITS
from pv_merge.arithmetic.stored import CODES, SIZES

POSITIVE, NEGATIVE, VECTOR = 1, -1, 0
"""Roles of inputs."""


class Flat(NamedTuple):
    """Elements in memory, one after the other."""

    address: int
    dtype: str
    """safetensors' name of it."""
    owner: object = None
    """Keeps the memory from being freed."""

    def window(self, start: int) -> Flat:
        """Return the elements from ``start`` on."""
        return Flat(self.address + start * SIZES[self.dtype], self.dtype, self.owner)


class Inputs(NamedTuple):
    """A window's tensors: the base's, and for each preference its inputs with their roles."""

    base: Flat
    groups: Sequence[Sequence[tuple[int, Flat]]]
    """(POSITIVE, NEGATIVE or VECTOR, tensor), positives first and vectors last."""

    def window(self, start: int) -> Inputs:
        """Return the same from the element ``start`` on."""
        groups = [[(role, flat.window(start)) for role, flat in group] for group in self.groups]
        return Inputs(self.base.window(start), groups)


Load = Callable[[int, int], Inputs]
"""Returns the inputs from an element on, so many of them."""


@dataclass(frozen=True)
class Strength:
    """What a recipe says of one preference, for one tensor."""

    eta: float
    density: float = 1.0
    max_relative_norm: float | None = None


@dataclass(frozen=True)
class Rules:
    """How a tensor is merged, whatever its inputs."""

    name: str = ""
    """The tensor's name; with ``seed`` it seeds the noise of stochastic rounding."""
    sign_consensus: str = "none"
    orthogonal: bool = False
    stochastic: bool = True
    seed: int = 0
    round_to: str = "F32"
    """Dtype that the result is rounded to."""
    stored: str = "F32"
    """Dtype that it is stored in."""
    cast: str | None = None
    """Dtype that every input is rounded to before anything is subtracted."""
    keep_base: bool = False
    """Whether a value that is not finite gives way to the base's."""
    report: bool = False
    alone: bool = False
    """Whether Σ η·φ is written without the base."""

    @property
    def is_noisy(self) -> bool:
        """Whether the result is rounded stochastically."""
        return self.stochastic and self.round_to in BITS

    @property
    def result(self) -> np.ndarray:
        """What becomes of a row, as kernels take it."""
        said = (self.is_noisy, CODES[self.stored], self.keep_base, self.report, self.alone)
        return np.array([CODES[self.round_to], *said], np.int64)


@dataclass
class Sums:
    """What a merge says of the elements that it has seen; P preferences, T outputs."""

    base: float = 0.0
    """‖base‖²"""
    gram: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """⟨φ_p, φ_q⟩, (P, P), the upper triangle"""
    reached: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """⟨out − base, φ_p⟩, (T, P)"""
    change: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """‖out − base‖², (T,)"""
    not_finite: int = 0
    """Values that are not finite, of all outputs."""


@dataclass
class Plan:
    """What is decided once for a whole tensor."""

    etas: np.ndarray
    """(targets, preferences), float32, capped"""
    sparse: np.ndarray
    """For each preference the bits of the threshold (−1: none) and how many equal to it may stay"""
    shares: np.ndarray
    """What φ_p loses of φ_q"""

    @staticmethod
    def plain(etas: Sequence[Sequence[float]]) -> Plan:
        """Return the plan of a tensor that needs no survey."""
        table = np.array(etas, np.float64).astype(np.float32).reshape(len(etas), -1)
        count = table.shape[1]
        return Plan(table, np.full((count, 2), -1, np.int64), np.zeros((count, count), np.float32))


class Scratch(threading.local):
    """Each thread's rows to work in."""

    rows = np.empty(0, np.float32)

    def take(self, preferences: int) -> np.ndarray:
        """Return memory for the rows of so many preferences."""
        size = (SCRATCH_ROWS + preferences) * ROW
        if self.rows.size < size:
            self.rows = np.empty(size, np.float32)
        return self.rows


scratch = Scratch()


def tables(inputs: Inputs, cast: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a window's inputs as kernels take them: base, parts, bounds."""
    code = -1 if cast is None else CODES[cast]
    base = np.array([inputs.base.address, CODES[inputs.base.dtype], code], np.int64)
    parts = [
        (flat.address, CODES[flat.dtype], role) for group in inputs.groups for role, flat in group
    ]
    bounds = np.cumsum([0, *(len(group) for group in inputs.groups)], dtype=np.int64)
    return base, np.array(parts, np.int64).reshape(-1, 3), bounds


def not_finite_in(flat: Flat, count: int) -> int | None:
    """Return the place of the first element that is not finite in float32, or None."""
    width = SIZES[flat.dtype]
    raw = memoryview((ctypes.c_char * (count * width)).from_address(flat.address))
    if flat.dtype == "F64":
        with np.errstate(over="ignore"):
            odd = ~np.isfinite(np.frombuffer(raw, np.float64).astype(np.float32))
    else:
        mask = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}[flat.dtype]
        bits = np.frombuffer(raw, f"u{width}")
        odd = np.bitwise_and(bits, mask) == mask
    return int(odd.argmax()) if odd.any() else None
