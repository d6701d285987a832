"""Samples of kernels' work, by which machine code from a file is held to what Numba runs itself.

``python -m pv_merge.arithmetic.native_check FILE NAME`` prints a digest of what the file's code
makes; it is a process of its own, since wrong machine code ends the process.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pv_merge.arithmetic.kernel_shape import BLOCK, LANES, ROW, SCRATCH_ROWS
from pv_merge.arithmetic.native import Call, load
from pv_merge.arithmetic.stored import CODES

COUNT = 3 * ROW + 17


def digest(kernel: Call, name: str) -> str:
    """Return a digest of all that a kernel writes for its sample."""
    written = SAMPLES[name](kernel)
    return hashlib.sha256(b"".join(array.tobytes() for array in written)).hexdigest()


def _inputs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return a base and four policies in bfloat16, and what kernels take of them."""
    rng = np.random.default_rng(7)
    held = [
        (rng.standard_normal(COUNT).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        for _ in range(5)
    ]
    code = CODES["BF16"]
    base = np.array([held[0].ctypes.data, code, -1], np.int64)
    parts = np.array(
        [(own.ctypes.data, code, 1 - 2 * (i % 2)) for i, own in enumerate(held[1:])], np.int64
    )
    bounds = np.array([0, 2, 4], np.int64)
    sparse, shares = np.full((2, 2), -1, np.int64), np.zeros((2, 2), np.float32)
    return held, [base, parts, bounds, sparse, shares]


def _merge(kernel: Call) -> list[np.ndarray]:
    held, tables = _inputs()
    code = CODES["BF16"]
    result = np.array([code, 1, code, 0, 1, 0], np.int64)
    words = np.arange(BLOCK, dtype=np.uint16)
    noise = np.array([words.ctypes.data], np.int64)
    out = np.zeros(COUNT, np.uint16)
    shared, sums = np.zeros(5), np.zeros((1, 4))
    scratch = np.zeros((SCRATCH_ROWS + 2) * ROW, np.float32)
    etas = np.array([[0.5, -1.25]], np.float32)
    for rule in (0, 1):
        kernel(
            COUNT, *tables, rule, etas, result, 5, noise, np.array([out.ctypes.data], np.int64),
            scratch, shared, sums,
        )  # fmt: skip
    return [held[0], out, shared, sums]


def _survey(kernel: Call) -> list[np.ndarray]:
    held, tables = _inputs()
    lanes = np.zeros((2, ROW))
    pairs = np.array([(0, 0), (-1, 1)], np.int64)
    scratch = np.zeros((SCRATCH_ROWS + 2) * ROW, np.float32)
    kernel(LANES, COUNT, *tables, pairs, scratch, np.zeros((1, 1), np.int64), lanes)
    return [held[0], lanes]


SAMPLES: dict[str, Callable[[Call], list[np.ndarray]]] = {
    "merge_window": _merge,
    "survey_window": _survey,
}

if __name__ == "__main__":
    print(digest(load(Path(sys.argv[1])), sys.argv[2]))
