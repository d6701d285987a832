"""What a push would send: files with their sizes, the card, and everything that stands against it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from pv_merge.artifacts.stamps import Stamp, stamp_of
from pv_merge.errors import PvMergeError, did_you_mean, raise_all
from pv_merge.hub.card.card import CARD, Extras, card_text, notes_in
from pv_merge.hub.card.markdown import plain
from pv_merge.hub.evaluations import Evaluation, found_in, read_evaluations
from pv_merge.hub.facts import Facts, read_facts
from pv_merge.hub.guards import refusals, token_in
from pv_merge.hub.machine_paths import rewritten
from pv_merge.hub.push_hints import hints
from pv_merge.hub.push_names import checked_name, checked_revision

LEFT_OUT = (".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store")
"""Folders and files of other tools, which are never part of a model."""


@dataclass(frozen=True)
class PushOptions:
    """How to publish."""

    public: bool = False
    """Create the repository public; it is private otherwise."""
    revision: str | None = None
    """Branch to write to, created where it does not exist."""
    commit_message: str | None = None
    exist_ok: bool = False
    """Write to a repository that exists."""
    notes: Path | None = None
    """File with the user's own text for the card."""
    evaluations: tuple[Path, ...] = ()
    """JSON files of ``pv-merge evaluate`` or ``sweep``, besides those in the folder."""
    base_model: str | None = None
    """The base's name on the Hub, where no manifest has it."""
    license: str | None = None
    include: tuple[str, ...] = ()
    """Files to publish although a guard refuses them."""
    allow_protected_negative: bool = False


@dataclass
class PushPlan:
    """One folder, ready to be published."""

    folder: Path
    repo: str
    facts: Facts
    options: PushOptions
    files: dict[str, int]
    """Sizes in bytes by name, without the card."""
    left_out: list[str]
    rewritten: dict[str, bytes]
    """What is sent in the place of files that name folders of this machine."""
    evaluations: list[Evaluation]
    warnings: list[str] = field(default_factory=list)
    notes: str = ""
    revisions: Markup = field(default_factory=Markup)
    stamps: dict[str, Stamp] = field(default_factory=dict)

    def card(self) -> str:
        """Return the card's text. Raises ``PvMergeError`` if a token-like string is in it."""
        name = f"{self.repo}@{self.options.revision}" if self.options.revision else self.repo
        extras = Extras(self.notes, self.evaluations, self.revisions)
        return checked_card(card_text(self.facts, name, extras, published=True))

    @property
    def total(self) -> int:
        """Bytes of all files but the card."""
        return sum(self.files.values())

    def content(self) -> dict[str, Path | bytes]:
        """Return what is sent, by name, without the card.

        Raises ``PvMergeError`` where a file is no longer what the guards looked at.
        """
        for name, stamp in self.stamps.items():
            if stamp_of(self.folder / name) != stamp:
                raise PvMergeError(
                    f"{self.folder / name}: changed since this push began to read it; is something "
                    "still writing there? Nothing of it was published"
                )
        return {name: self.rewritten.get(name, self.folder / name) for name in self.files}


def make_plan(folder: Path, repo: str, options: PushOptions, title: str | None = None) -> PushPlan:
    """Return the plan for ``folder``; nothing is sent, and nothing asked of the Hub.

    Raises ``PvMergeError`` with every file that is refused, a line each.
    """
    checked_name(repo)
    if options.revision is not None:
        checked_revision(repo, options.revision)
    said = {"base_model": options.base_model, "license": options.license}
    facts = read_facts(folder, title or repo.partition("/")[2], said)
    files, left_out = _files(folder)
    stamps = {name: stamp_of(folder / name) for name in files}
    changed = _rewritten(folder, files, options)
    _refuse(folder, files, changed, facts, options)
    paths = list(dict.fromkeys([*found_in(folder), *options.evaluations]))
    evaluations, warnings = read_evaluations(paths, facts)
    warnings += hints(facts, changed, paths)
    sizes = {name: len(changed[name]) if name in changed else files[name] for name in files}
    plan = PushPlan(folder, repo, facts, options, sizes, left_out, changed, evaluations, warnings)
    plan.notes, plan.stamps = _notes(folder, options), stamps
    return plan


def _refuse(
    folder: Path,
    files: dict[str, int],
    changed: dict[str, bytes],
    facts: Facts,
    options: PushOptions,
) -> None:
    """Raise ``PvMergeError`` with everything that must not be published."""
    problems = _unknown_includes(options.include, files)
    for refusal in refusals(folder, list(files), facts.base.folder, changed):
        if refusal.path not in options.include:
            problems.append(f"{folder}: {refusal} (--include {refusal.path} publishes it anyway)")
    if facts.negative_protected and not options.allow_protected_negative:
        what = (
            "a policy trained against" if facts.kind == "policy" else "a merge with negative eta on"
        )
        names = ", ".join(facts.negative_protected)
        problems.append(
            f"{folder}: is {what} the protected preference {names}; add "
            "--allow-protected-negative if it is to be published, with a warning in its card"
        )
    raise_all(problems)


def _rewritten(folder: Path, files: dict[str, int], options: PushOptions) -> dict[str, bytes]:
    """Return the files that name folders of this machine, without them."""
    places = {name: folder / name for name in files if name not in options.include}
    found = {name: rewritten(path) for name, path in places.items() if path.is_file()}
    return {name: data for name, data in found.items() if data is not None}


def checked_card(text: str) -> str:
    """Return a card that may be published: the client accepts it, and it holds no secret."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(text)
    except ValueError as error:
        raise PvMergeError(f"the card: not valid ({plain(error)})") from None
    found = token_in(text.encode())
    if found:
        raise PvMergeError(f"the card: {found} (it comes from the notes, recipe or command)")
    return text


def _files(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return the files to send with their sizes, and names of what is left out."""
    files, left_out = {}, []
    for root, folders, names in os.walk(folder):
        place = Path(root).relative_to(folder)
        for name in [*folders, *names]:
            if name in LEFT_OUT or name.endswith(".pyc"):
                left_out.append((place / name).as_posix())
        # A folder behind a symlink is not walked into, but a file of its name is refused.
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        folders[:] = sorted(n for n in folders if n not in LEFT_OUT and n not in links)
        for name in sorted([*names, *links]):
            path = Path(root) / name
            if name in LEFT_OUT or name.endswith(".pyc"):
                continue
            relative = (place / name).as_posix()
            if relative == CARD:
                left_out.append(f"{CARD} (the generated card takes its place)")
                continue
            files[relative] = path.stat().st_size if path.exists() else 0
    return dict(sorted(files.items())), left_out


def _unknown_includes(include: Sequence[str], files: dict[str, int]) -> list[str]:
    return [
        f"--include {name}: no such file in the folder{did_you_mean(name, files)}"
        for name in include
        if name not in files
    ]


def _notes(folder: Path, options: PushOptions) -> str:
    if options.notes is not None:
        try:
            return options.notes.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PvMergeError(f"--notes {options.notes}: cannot be read ({error})") from None
    card = folder / CARD
    return (
        (notes_in(card.read_text(encoding="utf-8", errors="replace")) or "")
        if card.exists()
        else ""
    )
