"""The base of what is published: its name on the Hub, and the licence that passes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pv_merge.artifacts.reference import (
    cached_folder,
    parse_hub_name,
    parse_reference,
    surely_on_hub,
    without_revision,
)
from pv_merge.errors import PvMergeError
from pv_merge.hub.known_models import MODELS
from pv_merge.hub.licence import Licence, licences_of, source_note
from pv_merge.hub.machine_paths import shown_path

SAID_BY_USER = "--license"


@dataclass
class PublishedBase:
    """The base model."""

    name: str | None
    """As recipe or manifest name it: a folder, or a name on the Hub."""
    repo: str | None
    """Its name on the Hub, where that is known."""
    sha256: str | None
    """Hash of its weights, where a manifest has it."""
    folder: Path | None
    """Where it lies here."""
    licences: list[Licence] = field(default_factory=list)
    """Everything that is said of the licence, what the user says first."""
    converted: str | None = None
    """The command that converts the weights, where they are not the repository's own."""

    @property
    def usable(self) -> str:
        """The name to load it by: the Hub's if those are the very weights, else the folder's."""
        if self.repo and not self.converted:
            return self.repo
        return shown_path(self.name or "BASE")

    @property
    def licence(self) -> Licence | None:
        """The licence, or None where it is not known or two are said (the user's word settles it)."""
        if not self.licences:
            return None
        first = self.licences[0]
        agreed = len({item.identifier for item in self.licences}) == 1
        return first if agreed or first.source == SAID_BY_USER else None

    @property
    def conflicting(self) -> list[Licence]:
        """What disagrees with ``licence``; everything that is said where there is none."""
        chosen = self.licence
        return [
            item for item in self.licences if not chosen or item.identifier != chosen.identifier
        ]


def find_base(
    name: str | None,
    sha256: str | None,
    said: Mapping[str, str | None],
    inputs: Sequence[str],
) -> PublishedBase:
    """Return what is known of the base ``name``; licences of ``inputs`` count as well.

    The name on the Hub is the user's word, else the name itself, else what ``pv-merge fetch``
    noted beside the weights.
    """
    folder = cached_folder(name) if name else None
    base = PublishedBase(name, None, sha256, folder)
    stated = said.get("license")
    if stated:
        base.licences.append(Licence(stated.lower(), SAID_BY_USER))
    if folder is not None:
        base.licences += licences_of(folder, "the base")
    for item in inputs:
        place = parse_reference(item).cached
        if place is not None:
            base.licences += licences_of(place, f"the input {Path(item).name}")
    given = said.get("base_model")
    if given:
        if parse_hub_name(given) is None:
            raise PvMergeError(
                f"--base-model {given}: expected a name on the Hub, such as namespace/name"
            )
        base.repo = given
    elif name and surely_on_hub(name):
        base.repo = without_revision(name)
    elif folder is not None:
        base.repo, base.converted = fetched_from(folder)
    return base


def fetched_from(folder: Path) -> tuple[str | None, str | None]:
    """Return (name on the Hub, command that converts it) as ``pv-merge fetch`` noted them."""
    said = source_note(folder)
    repo = said.get("repo")
    if isinstance(repo, str) and parse_hub_name(repo) is not None:
        return repo, None
    model = MODELS.get(str(said.get("model")))
    return (model.repo, f"pv-merge fetch {model.name}") if model else (None, None)
