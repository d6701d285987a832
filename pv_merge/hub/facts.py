"""What is known of a folder that is to be published, from its manifests; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pv_merge.artifacts.checkpoint import is_adapter
from pv_merge.artifacts.manifest import (
    RUN_MANIFEST,
    VECTOR_MANIFEST,
    BaseNote,
    Manifest,
    parse_manifest,
    read_manifest,
)
from pv_merge.artifacts.protection import is_protected
from pv_merge.artifacts.reference import parse_reference, surely_on_hub
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError
from pv_merge.hub.base import Base, find_base
from pv_merge.recipe.reading import parse_recipe
from pv_merge.recipe.recipe import Recipe

Kind = Literal["merge", "vector", "policy", "base"]

RECIPE_NAME = "mergekit_config.yml"
REPORT_NAME = "pv_merge_report.json"


@dataclass(frozen=True)
class Source:
    """One input of a merge, with its manifest where its folder is here."""

    name: str
    """As the recipe names it."""
    preference: str
    polarity: str
    manifest: dict[str, Any]


@dataclass
class Facts:
    """All that the manifests and reports of one folder say."""

    folder: Path
    title: str
    """The name that the card has as its heading."""
    kind: Kind
    adapter: bool
    """Whether it is a PEFT adapter rather than whole weights."""
    base: Base
    manifest: dict[str, Any] = field(default_factory=dict)
    """``pv_run.json`` or ``preference_vector.json``; empty for a merge."""
    recipe: Recipe | None = None
    recipe_text: str | None = None
    report: dict[str, Any] | None = None
    """``pv_merge_report.json``"""
    sources: list[Source] = field(default_factory=list)
    negative_protected: list[str] = field(default_factory=list)
    """Protected preferences that the model was moved against."""
    collection: bool = False
    """Whether it stands for several points, in a branch without weights."""

    @property
    def preferences(self) -> list[str]:
        """Names of the preferences, in the recipe's order."""
        if self.recipe is not None:
            return self.recipe.preferences
        name = self.manifest.get("preference")
        return [str(name)] if name else []

    @property
    def etas(self) -> dict[str, float | None]:
        """Each preference's eta; None where it differs between weights."""
        return self.recipe.etas if self.recipe is not None else {}

    @property
    def datasets(self) -> list[str]:
        """Names on the Hub of the data that policies were trained on."""
        places = [self.manifest, *(source.manifest for source in self.sources)]
        halves = [
            part
            for place in places
            for part in (place, place.get("positive") or {}, place.get("negative") or {})
        ]
        names = [str((half.get("dataset") or {}).get("path", "")) for half in halves]
        return list(dict.fromkeys(name for name in names if _is_hub_dataset(name)))

    @property
    def protected(self) -> bool:
        """Whether a vector or policy is of a protected preference."""
        return is_protected(str(self.manifest.get("preference")), self.manifest.get("protected"))


def read_facts(folder: Path, title: str, said: Mapping[str, str | None] | None = None) -> Facts:
    """Return what is known of ``folder``.

    ``said`` is what the user says: ``base_model`` (a name on the Hub) and ``license``. Raises
    ``PvMergeError`` where the folder is neither a merge, a vector nor a policy.
    """
    if not folder.is_dir():
        raise PvMergeError(f"{folder}: no such folder")
    said = said or {}
    if (folder / VECTOR_MANIFEST).exists():
        return _vector(folder, title, said)
    if (folder / RUN_MANIFEST).exists():
        return _policy(folder, title, said)
    if (folder / RECIPE_NAME).exists():
        return _merge(folder, title, said)
    raise PvMergeError(
        f"{folder}: holds no {RECIPE_NAME}, {VECTOR_MANIFEST} or {RUN_MANIFEST}, so it is neither a "
        "merge, a vector nor a policy of this package; its checkpoints are in a folder of their own"
    )


def _vector(folder: Path, title: str, said: Mapping[str, str | None]) -> Facts:
    manifest = read_manifest(folder, VECTOR_MANIFEST) or Manifest()
    base = find_base(manifest.made_from.path, manifest.made_from.weights_sha256, said, [])
    return Facts(folder, title, "vector", is_adapter(folder), base, manifest.data)


def _policy(folder: Path, title: str, said: Mapping[str, str | None]) -> Facts:
    manifest = read_manifest(folder, RUN_MANIFEST) or Manifest()
    base = find_base(manifest.made_from.path, manifest.made_from.weights_sha256, said, [])
    kind: Kind = "policy" if manifest.kind == "policy" else "base"
    facts = Facts(folder, title, kind, is_adapter(folder), base, manifest.data)
    if kind == "policy" and facts.protected and manifest.polarity == "negative":
        facts.negative_protected = [str(manifest.preference)]
    against = ((manifest.data.get("dataset") or {}).get("synthetic") or {}).get("opposes")
    if against and manifest.polarity == "positive":
        facts.negative_protected = [str(against)]
    return facts


def _merge(folder: Path, title: str, said: Mapping[str, str | None]) -> Facts:
    path = folder / RECIPE_NAME
    recipe, _ = parse_recipe(path)
    if recipe is None:
        raise PvMergeError(
            f"{path}: is not a recipe of preference vectors; push other merges with `hf upload`"
        )
    sources = [
        Source(
            item.model,
            item.preference,
            item.polarity,
            _input_manifest(item.model),
        )
        for item in recipe.inputs
    ]
    hashes = [_made_from(source).weights_sha256 for source in sources]
    known = next((value for value in hashes if value), None)
    base = find_base(recipe.base_model, known, said, [source.name for source in sources])
    report = read_object(folder / REPORT_NAME) if (folder / REPORT_NAME).exists() else None
    facts = Facts(
        folder,
        title,
        "merge",
        is_adapter(folder),
        base,
        recipe=recipe,
        recipe_text=recipe.text,
        report=report,
        sources=sources,
    )
    facts.negative_protected = _negative_protected(facts)
    return facts


def _input_manifest(model: str) -> dict[str, Any]:
    """Return the manifest of a recipe's input, where its folder is here or in the Hub's cache."""
    folder = parse_reference(model).cached
    found = read_manifest(folder) if folder is not None else None
    return found.data if found else {}


def _made_from(source: Source) -> BaseNote:
    return parse_manifest(source.manifest, source.name).made_from


def _negative_protected(facts: Facts) -> list[str]:
    assert facts.recipe is not None
    found = []
    for name in facts.recipe.preferences:
        said = [
            _said_protected(source, name) for source in facts.sources if source.preference == name
        ]
        if is_protected(name, *said) and facts.recipe.goes_negative(name):
            found.append(name)
    return found


def _said_protected(source: Source, name: str) -> bool | None:
    return parse_manifest(source.manifest, source.name).said_protected(name)


def _is_hub_dataset(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return surely_on_hub(name) and suffix not in (
        ".json",
        ".jsonl",
        ".csv",
        ".parquet",
        ".txt",
        ".gz",
        ".arrow",
    )


def joined(names: Sequence[str]) -> str:
    """Return names in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
