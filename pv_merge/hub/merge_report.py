"""The loss report of a merge, as its card reads it: typed, since a folder may hold anything."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from pv_merge.data.documents import read_object, validated

REPORT_NAME = "pv_merge_report.json"


class Arrived(BaseModel):
    """How much of one preference reached the weights."""

    eta: float | None = None
    norm: float | None = None
    relative_step: float = 0.0
    share: float


class LayerReport(BaseModel):
    """The same for one layer."""

    preferences: dict[str, Arrived] = Field(default_factory=dict)


class MergeReport(BaseModel):
    """``pv_merge_report.json``"""

    preferences: dict[str, Arrived]
    layers: dict[str, LayerReport] = Field(default_factory=dict)
    pv_merge: str | None = None

    def lowest(self, name: str) -> tuple[float, str] | None:
        """Return the lowest share of one preference, and its layer."""
        shares = [
            (part.preferences[name].share, label)
            for label, part in self.layers.items()
            if name in part.preferences
        ]
        return min(shares, default=None)


def read_merge_report(folder: Path) -> MergeReport | None:
    """Return the report that lies in a merge's folder, or None where there is none."""
    path = folder / REPORT_NAME
    if not path.exists():
        return None
    return validated(MergeReport, read_object(path), path)
