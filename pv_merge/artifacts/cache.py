"""The user's cache folder for this package; its home is below, where kernels need it too."""

from __future__ import annotations

from pv_merge.cache import cache_folder

__all__ = ["cache_folder"]
