"""What a push would send: files with their sizes, the card, and everything that stands against it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError, did_you_mean, raise_all
from pv_merge.hub.card.card import Extras, make_card, notes_in
from pv_merge.hub.facts import Facts, joined, read_facts
from pv_merge.hub.guards import refusals, token_in
from pv_merge.hub.results import Evaluation, found_in, read_evaluations

CARD = "README.md"
LEFT_OUT = (".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store")
"""Folders and files of other tools, which are never part of a model."""
_HOME = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|mnt|tmp|var|scratch)/[\w.+/-]+")


@dataclass(frozen=True)
class Options:
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
class Plan:
    """One folder, ready to be published."""

    folder: Path
    repo: str
    facts: Facts
    options: Options
    files: dict[str, int]
    """Sizes in bytes by name, without the card."""
    left_out: list[str]
    evaluations: list[Evaluation]
    warnings: list[str] = field(default_factory=list)
    notes: str = ""
    points: list[str] = field(default_factory=list)

    def card(self) -> str:
        """Return the card's text. Raises ``PvMergeError`` if a token-like string is in it."""
        name = f"{self.repo}@{self.options.revision}" if self.options.revision else self.repo
        extras = Extras(self.notes, self.evaluations, self.points)
        text = str(make_card(self.facts, name, extras))
        found = token_in(text.encode())
        if found:
            raise PvMergeError(f"the card: {found} (it comes from the notes, recipe or command)")
        return text

    @property
    def total(self) -> int:
        """Bytes of all files but the card."""
        return sum(self.files.values())


def make_plan(folder: Path, repo: str, options: Options, title: str | None = None) -> Plan:
    """Return the plan for ``folder``; nothing is sent, and nothing asked of the Hub.

    Raises ``PvMergeError`` with every file that is refused, a line each.
    """
    said = {"base_model": options.base_model, "license": options.license}
    facts = read_facts(folder, title or repo.partition("/")[2], said)
    files, left_out = _files(folder)
    problems = _unknown_includes(options.include, files)
    base = facts.base.folder
    for refusal in refusals(folder, list(files), base):
        if refusal.path not in options.include:
            problems.append(f"{folder}: {refusal} (--include {refusal.path} publishes it anyway)")
    if facts.negative_protected and not options.allow_protected_negative:
        what = (
            "a policy trained against" if facts.kind == "policy" else "a merge with negative eta on"
        )
        problems.append(
            f"{folder}: is {what} the protected preference {joined(facts.negative_protected)}; add "
            "--allow-protected-negative if it is to be published, with a warning in its card"
        )
    raise_all(problems)
    paths = [*found_in(folder), *options.evaluations]
    evaluations, unfit = read_evaluations(list(dict.fromkeys(paths)), facts)
    plan = Plan(folder, repo, facts, options, files, left_out, evaluations, unfit)
    licence = facts.base.licence_warning()
    plan.warnings += [licence] if licence else []
    if facts.base.repo is None:
        plan.warnings.append(
            "base_model: its name on the Hub is not known, so the card names none; say it with "
            "--base-model NAMESPACE/NAME"
        )
    plan.warnings += _private_paths(folder, files)
    plan.notes = _notes(folder, options)
    return plan


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


def _notes(folder: Path, options: Options) -> str:
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


def _private_paths(folder: Path, files: dict[str, Any]) -> list[str]:
    """Return a line for each manifest or recipe that names a folder of this machine."""
    found = []
    for name in files:
        path = folder / name
        manifest = path.suffix in (".json", ".yml", ".yaml") and not name.startswith("tokenizer")
        if manifest and path.is_file() and files[name] < 4 << 20:
            match = _HOME.search(path.read_text(encoding="utf-8", errors="replace"))
            if match:
                found.append(
                    f"{name}: names a folder of this machine, {match[0]}, and is published"
                )
    return found
