"""What is known of a folder that is to be published, from its manifests; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pv_merge.artifacts.checkpoint import is_adapter
from pv_merge.artifacts.manifest import (
    RUN_MANIFEST,
    VECTOR_MANIFEST,
    DatasetNote,
    Manifest,
    PolicyNote,
    read_manifest,
)
from pv_merge.artifacts.protection import is_protected
from pv_merge.artifacts.reference import parse_reference, surely_on_hub
from pv_merge.errors import PvMergeError
from pv_merge.hub.foreign_base import foreign_base
from pv_merge.hub.machine_paths import shown_text
from pv_merge.hub.merge_report import MergeReport, read_merge_report
from pv_merge.hub.published_base import PublishedBase, find_base
from pv_merge.recipe.reading import parse_recipe
from pv_merge.recipe.recipe import Recipe

Kind = Literal["merge", "vector", "policy", "base"]

RECIPE_NAME = "mergekit_config.yml"


@dataclass(frozen=True)
class Source:
    """One input of a merge, with its manifest where its folder is here."""

    name: str
    """As the recipe names it."""
    preference: str
    polarity: str
    manifest: Manifest | None
    foreign_base: str | None = None
    """The base that it was made from, where that is not the one that it was put on."""


@dataclass
class Facts:
    """All that the manifests and reports of one folder say."""

    folder: Path
    title: str
    """The name that the card has as its heading."""
    kind: Kind
    adapter: bool
    """Whether it is a PEFT adapter rather than whole weights."""
    base: PublishedBase
    manifest: Manifest = field(default_factory=Manifest)
    """``pv_run.json`` or ``preference_vector.json``; empty for a merge."""
    recipe: Recipe | None = None
    recipe_text: str | None = None
    report: MergeReport | None = None
    sources: list[Source] = field(default_factory=list)
    negative_protected: list[str] = field(default_factory=list)
    """Protected preferences that the model was moved against."""
    collection: bool = False
    """Whether it stands for several points, in a branch without weights."""

    @property
    def shown_recipe(self) -> str:
        """The recipe's text as a card shows it, without the folders of this machine."""
        return shown_text(self.recipe_text or "").rstrip()

    @property
    def halves(self) -> dict[str, PolicyNote]:
        """What a vector's manifest says of its two policies, by polarity."""
        return halves_of(self.manifest)

    @property
    def preferences(self) -> list[str]:
        """Names of the preferences, in the recipe's order."""
        if self.recipe is not None:
            return self.recipe.preferences
        return [self.manifest.preference] if self.manifest.preference else []

    @property
    def etas(self) -> dict[str, float | None]:
        """Each preference's eta; None where it differs between weights."""
        return self.recipe.etas if self.recipe is not None else {}

    @property
    def trainings(self) -> list[PolicyNote]:
        """What the manifests say of each training: the model's own, its inputs', their halves'."""
        manifests = [self.manifest, *(source.manifest for source in self.sources)]
        known = [manifest for manifest in manifests if manifest is not None]
        return [note for item in known for note in (item, *halves_of(item).values())]

    @property
    def datasets(self) -> list[str]:
        """Names on the Hub of the data that policies were trained on."""
        paths = [note.dataset.path for note in self.trainings if note.dataset]
        names = [path for path in paths if path]
        return list(dict.fromkeys(name for name in names if _is_hub_dataset(name)))

    @property
    def protected(self) -> bool:
        """Whether a vector or policy is of a protected preference."""
        return is_protected(str(self.manifest.preference), self.manifest.protected)


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
    return Facts(folder, title, "vector", is_adapter(folder), _base(manifest, said), manifest)


def _policy(folder: Path, title: str, said: Mapping[str, str | None]) -> Facts:
    manifest = read_manifest(folder, RUN_MANIFEST) or Manifest()
    kind: Kind = "policy" if manifest.kind == "policy" else "base"
    facts = Facts(folder, title, kind, is_adapter(folder), _base(manifest, said), manifest)
    if kind == "policy" and facts.protected and manifest.polarity == "negative":
        facts.negative_protected = [str(manifest.preference)]
    against = synthetic_note(manifest.dataset).get("opposes")
    if against and manifest.polarity == "positive":
        facts.negative_protected = [str(against)]
    return facts


def synthetic_note(data: DatasetNote | None) -> dict[str, Any]:
    """Return what a manifest says of pairs that a model wrote; nothing of others."""
    said = (data.model_extra or {}).get("synthetic") if data else None
    return said if isinstance(said, dict) else {}


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
            foreign_base(recipe, item, _input_manifest(item.model)),
        )
        for item in recipe.inputs
    ]
    own = [s for s in sources if s.manifest and s.foreign_base is None]
    hashes = [s.manifest.made_from.weights_sha256 for s in own if s.manifest]
    known = next((value for value in hashes if value), None)
    base = find_base(recipe.base_model, known, said, [source.name for source in sources])
    report = read_merge_report(folder)
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


def _base(manifest: Manifest, said: Mapping[str, str | None]) -> PublishedBase:
    return find_base(manifest.made_from.path, manifest.made_from.weights_sha256, said, [])


def halves_of(manifest: Manifest) -> dict[str, PolicyNote]:
    """Return what a vector's manifest says of its policies, by polarity."""
    sides = {"positive": manifest.positive, "negative": manifest.negative}
    return {side: half for side, half in sides.items() if half is not None}


def _input_manifest(model: str) -> Manifest | None:
    """Return the manifest of a recipe's input, where its folder is here or in the Hub's cache."""
    folder = parse_reference(model).cached
    return None if folder is None else read_manifest(folder)


def _negative_protected(facts: Facts) -> list[str]:
    assert facts.recipe is not None
    found = []
    for name in facts.recipe.preferences:
        said = [
            source.manifest.said_protected(name) if source.manifest else None
            for source in facts.sources
            if source.preference == name
        ]
        if is_protected(name, *said) and facts.recipe.goes_negative(name):
            found.append(name)
    return found


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
