"""The size of a kernel's row, for code that need not load Numba."""

from __future__ import annotations

ROW = 1024
"""Elements of a row. All rows that a merge of two preferences works on fit the first-level cache."""
