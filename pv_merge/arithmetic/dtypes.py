"""Dtypes by the names that safetensors, recipes and torch give them."""

from __future__ import annotations

import torch

from pv_merge.errors import PvMergeError, did_you_mean

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names of dtypes."""


DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtypes that one can round to, by name."""


TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def dtype_named(name: str) -> torch.dtype:
    """Return the floating-point dtype of that name."""
    if name not in TORCH_DTYPES:
        raise PvMergeError(f"unknown dtype {name!r}{did_you_mean(name, TORCH_DTYPES)}")
    return TORCH_DTYPES[name]
