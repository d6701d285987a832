"""What the server's environment says: every variable, with its default, in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError, raise_all

PREFIX = "PV_MERGE_SERVE_"

FOLDER = "PV_MERGE_VECTORS"
"""The variable that switches the plugin on: a folder with a subfolder for each low-rank vector."""

VARIABLES = {
    FOLDER: ("", "folder of low-rank vectors, a subfolder each; unset: the plugin is off"),
    f"{PREFIX}ETA_STEP": ("0.01", "eta is rounded to a multiple of this"),
    f"{PREFIX}ETA_MIN": ("-2", "lowest eta that a client may ask for"),
    f"{PREFIX}ETA_MAX": ("2", "highest eta that a client may ask for"),
    f"{PREFIX}MAX_TERMS": ("8", "most preferences in one mix"),
    f"{PREFIX}MAX_RANK": ("", "the server's --max-lora-rank; unset: the engine itself refuses"),
    f"{PREFIX}ALLOW_PROTECTED_NEGATIVE": ("0", "1: protected preferences may go below their bound"),
    f"{PREFIX}ALLOW_RELATED_BASE": ("0", "1: vectors of other fine-tunes than the served model"),
    f"{PREFIX}DTYPE": ("float32", "dtype of the adapters' files: float32, bfloat16 or float16"),
    f"{PREFIX}CACHE_MIXES": ("64", "most mixes on disk at a time"),
    f"{PREFIX}CACHE_GB": ("4", "most gigabytes of mixes on disk at a time"),
    "PV_MERGE_CACHE": ("~/.cache/pv-merge", "folder for caches; the mixes are in its serving/"),
}
"""Each variable with its default and its meaning, as the docs list them."""


@dataclass(frozen=True)
class Settings:
    """What a server allows."""

    vectors: Path
    """Folder with a subfolder for each vector."""
    eta_step: Decimal = Decimal("0.01")
    eta_min: Decimal = Decimal(-2)
    eta_max: Decimal = Decimal(2)
    max_terms: int = 8
    max_rank: int | None = None
    """Highest rank of a mix; None leaves the refusal to the engine."""
    allow_protected_negative: bool = False
    allow_related_base: bool = False
    """Whether vectors may be of other bases than the model that is served."""
    dtype: str = "float32"
    """Dtype of the adapters' files."""
    cache_mixes: int = 64
    cache_bytes: int = 4_000_000_000


def from_environment(environment: Mapping[str, str] | None = None) -> Settings | None:
    """Return the settings, or None where ``PV_MERGE_VECTORS`` is not set.

    Raises ``PvMergeError`` with every value that cannot be used.
    """
    said = os.environ if environment is None else environment
    folder = said.get(FOLDER, "").strip()
    if not folder:
        return None
    reader = _Reader(said)
    settings = Settings(
        vectors=Path(folder).expanduser().absolute(),
        eta_step=reader.number("ETA_STEP", low=Decimal("0.000001"), high=Decimal(1)),
        eta_min=reader.number("ETA_MIN", low=Decimal(-1000), high=Decimal(0)),
        eta_max=reader.number("ETA_MAX", low=Decimal(0), high=Decimal(1000)),
        max_terms=reader.count("MAX_TERMS"),
        max_rank=reader.count("MAX_RANK") if reader.text("MAX_RANK") else None,
        allow_protected_negative=reader.flag("ALLOW_PROTECTED_NEGATIVE"),
        allow_related_base=reader.flag("ALLOW_RELATED_BASE"),
        dtype=reader.word("DTYPE", ("float32", "bfloat16", "float16")),
        cache_mixes=reader.count("CACHE_MIXES"),
        cache_bytes=int(reader.number("CACHE_GB", low=Decimal("0.001")) * 10**9),
    )
    raise_all(reader.problems)
    return settings


class _Reader:
    """Reads values and collects what is wrong with them."""

    def __init__(self, said: Mapping[str, str]) -> None:
        self._said = said
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        default, _ = VARIABLES[PREFIX + name]
        return self._said.get(PREFIX + name, "").strip() or default

    def number(self, name: str, low: Decimal, high: Decimal = Decimal(10**6)) -> Decimal:
        try:
            value = Decimal(self.text(name))
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or not low <= value <= high:
            self._complain(name, f"a number from {low} to {high}")
            return low
        return value

    def count(self, name: str) -> int:
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
            self._complain(name, "a whole number above 0")
            return 1
        return int(text)

    def flag(self, name: str) -> bool:
        return self.word(name, ("0", "1", "false", "true")) in ("1", "true")

    def word(self, name: str, known: tuple[str, ...]) -> str:
        text = self.text(name).lower()
        if text not in known:
            self._complain(name, f"one of {', '.join(known)}")
            return known[0]
        return text

    def _complain(self, name: str, wanted: Any) -> None:
        self.problems.append(f"{PREFIX}{name}: expected {wanted}, got {self.text(name)!r}")


def required(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings; ``PvMergeError`` where ``PV_MERGE_VECTORS`` is not set."""
    settings = from_environment(environment)
    if settings is None:
        raise PvMergeError(f"{FOLDER} is not set; it names the folder of low-rank vectors")
    return settings
