"""The random words of stochastic rounding: a function of (seed, tensor name, position) alone."""

from __future__ import annotations

import hashlib
import threading

import numpy as np

from pv_merge.arithmetic.kernel_shape import BLOCK

BITS = {"BF16": 16, "F16": 24}
"""Random bits that rounding to a dtype takes for each position."""


_rings: dict[int, np.ndarray] = {}
_lock = threading.Lock()


def ring(bits: int) -> np.ndarray:
    """Return BLOCK fixed random words of ``bits`` bits, twice over: uint16, or uint32 for more.

    There is one array of each, for as long as the process lives: kernels know it by its address.

    Their upper 18 bits are a permutation of 0 … BLOCK − 1, so every value that they can take is
    there equally often. The order is that of a mixing function applied to 0, 1, 2, …
    """
    with _lock:
        if bits not in _rings:
            _rings[bits] = _words(bits)
        return _rings[bits]


def _words(bits: int) -> np.ndarray:
    x = np.arange(BLOCK, dtype=np.uint32)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
        x ^= x >> np.uint32(15)
    words = (np.argsort(x).astype(np.uint32) << np.uint32(14)) | (x & np.uint32(0x3FFF))
    words = (words >> np.uint32(32 - bits)).astype(np.uint16 if bits <= 16 else np.uint32)
    return np.concatenate([words, words])


def first_word(seed: int, name: str, block: int) -> int:
    """Return where in the ring the block of that number begins, for a tensor."""
    label = f"{seed}\0{name}\0{block}".encode()
    digest = hashlib.blake2b(label, digest_size=8).digest()
    return int.from_bytes(digest, "little") % BLOCK
