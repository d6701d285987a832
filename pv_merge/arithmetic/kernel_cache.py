"""Where compiled kernels are kept: a folder of the user's cache for this processor and these sources.

The folder's name is a hash of all the kernels' sources, so that a kernel of another version is never
run; Numba's own cache would not see changes of what a kernel calls.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import llvmlite
from llvmlite import binding as llvm

from pv_merge.cache import cache_folder

SOURCES = (
    "compiling.py",
    *(f"kernel_{part}.py" for part in ("report", "rounding", "rows", "shape", "sums")),
    "kernels.py",
)


@lru_cache(maxsize=1)
def cache_place() -> Path | None:
    """Return a folder for compiled kernels that can be written; None if there is no such place."""
    processor = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    digest = hashlib.sha256(f"{llvmlite.__version__} {processor}".encode())
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
