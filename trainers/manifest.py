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


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a policy, or None where the folder has none."""
    manifest = read_any(folder, RUN_MANIFEST)
    if manifest is None:
        return None
    if manifest.kind != "policy":
        raise PvMergeError(f"{folder / RUN_MANIFEST}: is not the manifest of a policy")
    return manifest.data


def read_sft_manifest(folder: Path) -> dict[str, Any] | None:
    """Return how ``pv-train sft`` made a base, or None where it did not: base, dataset, settings."""
    manifest = read_any(folder, RUN_MANIFEST)
    if manifest is None or manifest.kind != "sft":
        return None
    kept = ("base_model", "dataset", "lora", "sft", "seed")
    return {key: manifest.data[key] for key in kept if key in manifest.data}
