"""What a publisher should know of a push that can be carried out: gaps, conflicts, results near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pv_merge.hub.evaluations import found_near
from pv_merge.hub.facts import Facts
from pv_merge.hub.published_base import PublishedBase


def hints(facts: Facts, changed: Iterable[str], known: Sequence[Path]) -> list[str]:
    """Return what the user should know of a plan that can be carried out."""
    lines = [licence_warning(facts.base)]
    if facts.base.repo is None:
        lines.append(
            "base_model: its name on the Hub is not known, so the card names none; say it with "
            "--base-model NAMESPACE/NAME"
        )
    lines += [
        f"{name}: names folders of this machine; published with their last names alone"
        for name in changed
    ]
    lines += [
        f"{path}: results of this model lie here; --evaluation {path} puts them into the card"
        for path in found_near(facts.folder, facts, known)
    ]
    return [line for line in lines if line]


def licence_warning(base: PublishedBase) -> str | None:
    """Return what the terminal says where the licence is not clear."""
    if not base.licences:
        return "licence: unknown, so the card names none; say it with --license ID"
    if not base.conflicting:
        return None
    others = "; ".join(map(str, base.conflicting))
    if base.licence is None:
        return f"licence: in conflict: {others}; the card names none; settle it with --license ID"
    return f"licence: {base.licence.title}, as you say, in conflict with {others}"
