"""Reward models that ``pv-train reward`` made: their folder, and whether they know a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import read_object

PROMPTS = "pv_prompts.json"
"""File of the digests of the prompts that a reward model was trained on."""


def write_prompts(folder: Path, prompts: Iterable[str]) -> None:
    """Leave in a reward model's folder which prompts it knows, as digests."""
    write_json(folder / PROMPTS, {"sha256_16": sorted(_digests(prompts))})


def known_prompts(folder: str | Path, prompts: Iterable[str]) -> int:
    """Return how many of ``prompts`` a reward model was trained on; 0 if its folder does not say."""
    place = Path(folder) / PROMPTS
    if not place.is_file():
        return 0
    return len(set(read_object(place)["sha256_16"]) & _digests(prompts))


def _digests(prompts: Iterable[str]) -> set[str]:
    """Return 16 hexadecimal digits for each distinct prompt."""
    return {hashlib.sha256(text.strip().encode()).hexdigest()[:16] for text in prompts}
