"""The recipe that takes back what a fine-tune has moved against vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from pv_merge.arithmetic.stored import NAMED
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.folders import write_text
from pv_merge.errors import PvMergeError
from pv_merge.merging.drift import Drift


def write_undoing(found: Drift, folders: Mapping[str, str], path: Path) -> bool:
    """Write a recipe over the fine-tune with every suggested eta; return whether there was any.

    ``folders`` has each vector's folder by its label. Raises ``PvMergeError`` where ``path`` exists.
    """
    if path.exists():
        raise PvMergeError(f"{path}: exists, and is not overwritten; name another file")
    if is_adapter(found["model"]):
        raise PvMergeError(
            f"{found['model']}: is an adapter, and a recipe starts from whole weights; merge it first"
        )
    moved = {
        label: entry for label, entry in found["vectors"].items() if entry["suggested_eta"] > 0
    }
    if not moved:
        return False
    names = [entry["preference"] for entry in moved.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PvMergeError(f"{twice} has several vectors here; undo it along one of them")
    models = [
        {
            "model": folders[label],
            "parameters": {
                "preference": entry["preference"],
                "polarity": "vector",
                "eta": round(entry["suggested_eta"], 6),
            },
        }
        for label, entry in moved.items()
    ]
    document: dict[str, object] = {
        "merge_method": "preference_vector",
        "base_model": found["model"],
        "models": models,
        "parameters": {"allow_related_base": True},
    }
    stored = {info.dtype for info in Checkpoint(found["model"]).infos.values() if info.floating}
    narrow = next((name for name in ("bfloat16", "float16") if stored == {NAMED[name]}), None)
    if narrow is not None:
        document["parameters"] = {"allow_related_base": True, "round_to": narrow}
        document["out_dtype"] = narrow
    write_text(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return True
