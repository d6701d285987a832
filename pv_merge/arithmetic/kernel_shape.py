"""The sizes that kernels work in, for code that need not load Numba."""

from __future__ import annotations

ROW = 1024
"""Elements of a row. All rows that a merge of two preferences works on fit the first-level cache."""

BLOCK = 1 << 18
"""Positions that share one start in the ring of random words."""

SCRATCH_ROWS = 4
"""Rows of scratch memory beside one for each preference."""

COUNT_HIGH, COUNT_LOW, LANES = 0, 1, 2
"""What ``survey_window`` does."""
