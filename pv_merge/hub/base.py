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
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError


@dataclass(frozen=True)
class Licence:
    """A licence, and who says so."""

    identifier: str
    """The Hub's identifier, such as ``apache-2.0``, or ``other``."""
    source: str
    name: str | None = None
    link: str | None = None


@dataclass
class Base:
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
        agreed = len({item.identifier for item in self.licences}) == 1
        return self.licences[0] if agreed or self.licences[0].source == "--license" else None

    def licence_line(self) -> str:
        """Return what a card says of the licence, conflicts and gaps with it."""
        said = [f"{item.name or item.identifier} ({item.source})" for item in self.licences]
        if not said:
            return "Unknown: nothing here says what the base's licence is. Ask before you use it."
        chosen = self.licence
        if chosen is None:
            return (
                f"**Conflict**: {'; '.join(said)}. No licence is claimed here; all of these apply "
                "until it is settled."
            )
        others = [
            text for text, item in zip(said, self.licences, strict=True) if _differs(item, chosen)
        ]
        line = f"{chosen.name or chosen.identifier}, taken over from {chosen.source}."
        if chosen.source == "--license":
            line = f"{chosen.name or chosen.identifier}, as the publisher says."
        if others:
            line += f" **Conflict**: {'; '.join(others)}."
        return line

    def licence_warning(self) -> str | None:
        """Return what the terminal says where the licence is not clear."""
        line = self.licence_line()
        if not self.licences:
            return "licence: unknown, so the card names none; say it with --license ID"
        return f"licence: {line.replace('**', '')}" if "Conflict" in line else None


def find_base(
    name: str | None,
    sha256: str | None,
    said: Mapping[str, str | None],
    inputs: Sequence[str],
) -> Base:
    """Return what is known of the base ``name``; licences of ``inputs`` count as well.

    The name on the Hub is the user's word, else the name itself, else what ``pv-merge fetch``
    noted beside the weights.
    """
    folder = cached_folder(name) if name else None
    base = Base(name, None, sha256, folder)
    stated = said.get("license")
    if stated:
        base.licences.append(Licence(stated.lower(), "--license"))
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
        base.repo, base.converted = _noted(folder)
    return base


def licences_of(folder: Path, source: str) -> list[Licence]:
    """Return what a model's folder says of its licence: its card, or the note of ``fetch``."""
    found = []
    card = folder / "README.md"
    if card.exists():
        from huggingface_hub import ModelCard

        try:
            data = ModelCard.load(card, ignore_metadata_errors=True).data
        except Exception:  # a card that cannot be read says nothing
            data = None
        if data is not None and isinstance(data.license, str):
            found.append(
                Licence(
                    data.license.lower(), f"{source}'s card", data.license_name, data.license_link
                )
            )
    note = folder / "pv_source.json"
    if note.exists():
        said = read_object(note).get("licence")
        if isinstance(said, str):
            found.append(Licence(said.lower(), source))
    return found


def _noted(folder: Path) -> tuple[str | None, str | None]:
    """Return (name on the Hub, command that converts it) as ``pv-merge fetch`` noted them."""
    note = folder / "pv_source.json"
    if not note.exists():
        return None, None
    said = read_object(note)
    if isinstance(said.get("repo"), str):
        return said["repo"], None
    from pv_merge.hub.fetch import MODELS

    model = MODELS.get(str(said.get("model")))
    return (model.repo, f"pv-merge fetch {model.name}") if model else (None, None)


def shown_path(path: object) -> str:
    """Return a path as a card shows it: relative ones and names as they are, others by name."""
    text = str(path)
    return Path(text).name if text.startswith(("/", "~")) or text[1:3] == ":\\" else text


def _differs(item: Licence, other: Licence) -> bool:
    return item.identifier != other.identifier
