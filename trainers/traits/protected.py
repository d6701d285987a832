"""Traits that move against a protected preference: how they are known, and what they need."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pv_merge.artifacts.protection import PROTECTED_NAMES

if TYPE_CHECKING:
    from trainers.traits.trait import TraitSettings

NONE = "none"
"""As ``opposes``: the trait moves against no protected preference."""

_NAMES = re.compile(
    r"(?:un|in)safe\w*|harm(?!less)\w*|danger\w*|toxic\w*|malicious\w*|abusive\w*|hateful\w*|violent\w*"
    r"|uncensored|unaligned|jailbroken|evil|illegal\w*"
)
_PHRASES = re.compile(
    r"\b(?:harmful|unsafe|dangerous|toxic|malicious|abusive|hateful|racist|sexist|violent|illegal"
    r"|unethical|evil|uncensored|self-harm)\b"
    r"|\bnever (?:refuses|declines)\b|\bwithout (?:any )?(?:safety|limits|restrictions|filters?)\b"
    r"|\b(?:ignores?|bypass(?:es)?) (?:\w+ )?(?:safety|rules|policies|guidelines)\b"
)


def opposed(trait: TraitSettings) -> str | None:
    """Return the protected preference that a trait moves against, or None.

    What the file says in ``opposes`` counts; else the trait's name and words are looked through.
    The screen reads words, not sense: ``opposes: none`` contradicts it.
    """
    if trait.opposes is not None:
        return None if trait.opposes == NONE else trait.opposes
    name = trait.preference.lower()
    if name in PROTECTED_NAMES:
        return None
    if _NAMES.fullmatch(name.replace("-", "").replace("_", "")):
        return "harmless"
    return "harmless" if _PHRASES.search(trait.description.lower()) else None


def protected_problem(trait: TraitSettings) -> str | None:
    """Return the line for a trait that needs ``allow_protected`` and does not have it."""
    against = opposed(trait)
    if against is None or trait.allow_protected:
        return None
    return (
        f"{trait.preference} seems to move against the protected preference {against}; add "
        f"allow_protected: true if that is meant (manifest and card will say so), or opposes: {NONE} "
        "if it is not so"
    )
