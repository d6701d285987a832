"""Dtypes as files name them, for code that must do without torch: sizes, promotion, kernels' codes."""

from __future__ import annotations

from pv_merge.errors import PvMergeError

CODES = {"F32": 0, "BF16": 1, "F16": 2, "F64": 3}
"""Dtypes that can hold weights, by safetensors' names, with the number that kernels know them by."""

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip
"""Bytes of an element."""

NAMED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
"""safetensors' names by those that recipes give."""


def is_weight(dtype: str) -> bool:
    """Return whether a dtype holds weights, rather than whole numbers or flags."""
    return dtype in CODES


def promoted(left: str, right: str) -> str:
    """Return the narrowest dtype that holds all values of both, as torch promotes them."""
    if left == right:
        return left
    if {left, right} == {"F16", "BF16"}:
        return "F32"
    return max(left, right, key=lambda dtype: (SIZES[dtype], dtype))


def size_of(dtype: str) -> int:
    """Return the bytes of an element. Raises ``PvMergeError`` for a dtype that cannot be merged."""
    if dtype not in SIZES:
        raise PvMergeError(f"is stored as {dtype}, which cannot be merged")
    return SIZES[dtype]
