"""Manifests: what a folder's JSON says of how it was made, and the one reader of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, StrictBool

from pv_merge.artifacts.names import name_problem
from pv_merge.data.documents import read_object, validated
from pv_merge.errors import PvMergeError

VECTOR_MANIFEST = "preference_vector.json"
"""The manifest of a preference vector."""
RUN_MANIFEST = "pv_run.json"
"""The manifest of a trained policy or base."""
EXPORT_MANIFEST = "pv_export.json"
"""The manifest of a recipe's mix that was exported for a serving engine."""
MANIFESTS = (VECTOR_MANIFEST, RUN_MANIFEST, EXPORT_MANIFEST)
"""Where a model's manifest may be; the first that is there counts."""
FORMAT = 1
"""The format that this version writes, and the latest that it reads."""


class _Note(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class BaseNote(_Note):
    """What a manifest says of the base model."""

    path: str | None = None
    """Its folder or its name on the Hub."""
    weights_sha256: str | None = None
    """The hash of its weights: ``pv_merge.artifacts.base_hash.weights_hash``."""


class DatasetNote(_Note):
    """What a manifest says of the data that a model was trained on."""

    path: str | None = None
    pairs: int | None = None
    rows: int | None = None
    fingerprint: str | None = None
    labels_swapped: StrictBool | None = None


class PolicyNote(_Note):
    """What is known of one policy, in its own manifest and in that of a vector made of it."""

    path: str | None = None
    form: str | None = None
    polarity: Literal["positive", "negative"] | None = None
    dataset: DatasetNote | None = None
    lora: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    sft: dict[str, Any] | None = None
    seed: int | None = None
    metrics: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    versions: dict[str, str] | None = None


class Manifest(PolicyNote):
    """The manifest of a vector, a policy, a base or an export; every key is optional.

    ``data`` is all of it as it was read, to be handed on.
    """

    kind: Literal["preference_vector", "policy", "sft", "reward", "export"] | None = None
    format: int | None = None
    preference: str | None = None
    protected: StrictBool | None = None
    protected_minimum: float | None = None
    dtype: str | None = None
    rank: int | None = None
    relative_error: float | None = None
    measures: dict[str, float | None] | None = None
    base: BaseNote | None = None
    """The base, of a vector or an export."""
    base_model: BaseNote | None = None
    """The base, of a policy."""
    positive: PolicyNote | None = None
    negative: PolicyNote | None = None
    preferences: dict[str, Any] | None = None
    """The preferences in an export, by name."""
    _data: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """The manifest as it was read."""
        return self._data

    @property
    def made_from(self) -> BaseNote:
        """The base, wherever the manifest has it; empty where it has none."""
        return self.base or self.base_model or BaseNote()

    @property
    def is_vector(self) -> bool:
        """Whether it is of a preference vector."""
        return self.kind == "preference_vector"

    def said_protected(self, name: str) -> bool | None:
        """Return whether it says ``name`` is protected; its "no" is only for the name that it has."""
        if self.protected is False and self.preference != name:
            return None
        return self.protected


def parse_manifest(data: dict[str, Any], where: object) -> Manifest:
    """Return a manifest's values, checked; ``PvMergeError`` with a line for each wrong one."""
    found = validated(Manifest, data, where)
    if found.format is not None and found.format > FORMAT:
        raise PvMergeError(
            f"{where}: has format {found.format}, this version of pv-merge reads up to {FORMAT}; "
            "was it written by a later one?"
        )
    problem = None if found.preference is None else name_problem(found.preference)
    if problem is not None:
        raise PvMergeError(f"{where}: preference: {problem}")
    found._data = data
    return found


def read_manifest(folder: str | Path, *files: str) -> Manifest | None:
    """Return the manifest in a folder, the first of ``files`` (``MANIFESTS``) that is there.

    None where there is none. ``PvMergeError`` if it is not a manifest.
    """
    for file in files or MANIFESTS:
        path = Path(folder) / file
        if path.exists() or path.is_symlink():
            return parse_manifest(read_object(path), path)
    return None


@lru_cache(maxsize=256)
def said_in(folder: str, name: str) -> bool | None:
    """Return whether the manifest in an input's folder says that ``name`` is protected."""
    manifest = read_manifest(folder)
    return manifest.said_protected(name) if manifest else None


def public_path(text: str) -> str:
    """Return an absolute path's last part, and any other text as it is."""
    if PurePosixPath(text).is_absolute() or text.startswith("~"):
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text
