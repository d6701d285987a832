"""The manifest of a trained policy, ``pv_run.json``: what made it, from what, and how it went."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.artifacts.manifest import RUN_MANIFEST
from pv_merge.artifacts.manifest import read_manifest as read_any
from pv_merge.errors import PvMergeError

PACKAGES = (
    "pv-merge",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "mergekit",
)

_NOT_HYPERPARAMETERS = frozenset(
    {
        "output_dir", "logging_dir", "run_name", "hub_model_id", "hub_token", "hub_strategy",
        "hub_private_repo", "push_to_hub", "local_rank", "ddp_backend", "disable_tqdm", "report_to",
        "project", "trackio_space_id", "log_level", "log_level_replica", "resume_from_checkpoint",
    }
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hyperparameters(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return TRL's arguments without paths, tokens and unset values, ready for JSON."""
    return {
        key: value
        for key, value in arguments.items()
        if key not in _NOT_HYPERPARAMETERS and value is not None and _plain(value)
    }


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    return isinstance(value, str | int | float | bool)


def write_manifest(folder: Path, data: dict[str, Any], kind: str = "policy") -> None:
    """Write ``data`` as the manifest of what ``pv-train`` made in ``folder``."""
    write_json(folder / RUN_MANIFEST, {"kind": kind, "format": 1, **data, "versions": versions()})


KINDS = {"policy": "a policy", "sft": "a base", "reward": "a reward model"}
"""What ``pv-train`` makes, as manifests and as people call it."""


def read_manifest(folder: Path, kind: str = "policy") -> dict[str, Any] | None:
    """Return the whole manifest of what ``pv-train`` made in ``folder``, or None without one.

    Raises ``PvMergeError`` if it is of another kind.
    """
    manifest = read_any(folder, RUN_MANIFEST)
    if manifest is None:
        return None
    if manifest.kind != kind:
        raise PvMergeError(f"{folder / RUN_MANIFEST}: is not the manifest of {KINDS[kind]}")
    return manifest.data


def made_by_sft(base: Path) -> dict[str, Any] | None:
    """Return how ``pv-train sft`` made a base (base, dataset, settings), or None where it did not."""
    said = read_any(base, RUN_MANIFEST)
    if said is None or said.kind != "sft":
        return None
    names = ("base_model", "dataset", "lora", "sft", "seed")
    return {name: said.data[name] for name in names if name in said.data}
