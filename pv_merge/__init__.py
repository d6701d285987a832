"""Preference vectors for large language models, as a plugin of mergekit.

Importing this package loads neither torch nor mergekit: PyTorch itself imports it (see
``pv_merge.integrations.mergekit.plugin``), so it must stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pv_merge.version import __version__

if TYPE_CHECKING:
    from pv_merge.artifacts.vector import PreferenceVector
    from pv_merge.live.controller import PreferenceController

__all__ = ["PreferenceController", "PreferenceVector", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "PreferenceVector":
        from pv_merge.artifacts.vector import PreferenceVector

        return PreferenceVector
    if name == "PreferenceController":
        from pv_merge.live.controller import PreferenceController

        return PreferenceController
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
