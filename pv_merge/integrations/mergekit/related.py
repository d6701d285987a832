"""The bases that inputs were made from, inside mergekit, which hands a method its inputs alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mergekit.common import ModelReference
from torch import Tensor

from pv_merge.artifacts.base_hash import cheap_hash, from_other_bases, same_base
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.manifest import Manifest, read_manifest
from pv_merge.artifacts.reference import cached_folder, parse_reference
from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.checks.same_base import ALLOW
from pv_merge.recipe.grouping import InputSettings
from pv_merge.recipe.own_base import Origin, PolicySide, noted, origins, own_base

SaidBases = tuple[tuple[str, str], ...]
"""Every input as the recipe names it, with the base that it says of it; empty without one."""


@dataclass(frozen=True)
class OriginInput:
    """A base that a preference counts from, as one more input of it."""

    origin: Origin

    @property
    def settings(self) -> InputSettings:
        """What a recipe would say of it."""
        item = self.origin
        return InputSettings(str(item.checkpoint), item.preference, item.polarity, {})

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """Return its weight ``name``. Raises ``PvMergeError`` where it has none of that shape."""
        if name not in self.origin.checkpoint:
            raise PvMergeError(f"{self.origin.checkpoint}: lacks {name}", Topic.BASE)
        found = self.origin.checkpoint.tensor(name)
        if found.shape != like.shape:
            raise PvMergeError(
                f"{self.origin.checkpoint}: has shape {list(found.shape)} in {name}, the base "
                f"{list(like.shape)}",
                Topic.BASE,
            )
        return found.to(like.device)


def origin_inputs(
    base: Hashable, said: SaidBases, settings: Sequence[InputSettings]
) -> tuple[OriginInput, ...]:
    """Return what must be subtracted besides the inputs, for policies of another base than ``base``.

    Raises ``PvMergeError`` where that cannot be told.
    """
    roles = tuple((item.preference or "", item.polarity or "") for item in settings)
    name = _name(base)
    if name is not None:
        return _opened(name, said, roles)
    for preference in {preference for preference, _ in roles}:
        if roles.count((preference, "positive")) != roles.count((preference, "negative")):
            raise PvMergeError(
                f"{base}: is no model folder here, so it cannot be told whether {preference} was made "
                "from it; leave allow_related_base out, or name its base as the other side",
                Topic.BASE,
            )
    return ()


def _name(base: Hashable) -> str | None:
    """Return the base's folder or name on the Hub, where it is here as a folder."""
    if not isinstance(base, ModelReference) or base.lora is not None:
        return None
    revision = f"@{base.model.revision}" if base.model.revision else ""
    name = f"{base.model.path}{revision}"
    return None if cached_folder(name) is None else name


@lru_cache(maxsize=64)
def _opened(
    base: str, said: SaidBases, roles: tuple[tuple[str, str], ...]
) -> tuple[OriginInput, ...]:
    sides = []
    for (model, given), (preference, polarity) in zip(said, roles, strict=True):
        if polarity in ("positive", "negative"):
            reference = parse_reference(model)
            note = own_base(given, reference, _manifest(reference.name))
            sides.append(PolicySide(model, preference, polarity, note))
    found = origins(Checkpoint(base), sides)
    return tuple(OriginInput(item) for item in found for _ in range(abs(item.times)))


def refuse_other_bases(base: Hashable, said: SaidBases) -> None:
    """Raise ``PvMergeError`` where an input was made from another base, by its manifest or the recipe."""
    if isinstance(base, ModelReference) and base.lora is None and Path(base.model.path).is_dir():
        _refuse(base.model.path, said)


@lru_cache(maxsize=64)
def _refuse(base: str, said: SaidBases) -> None:
    hashes: dict[str, str | None] = {}
    for model, given in said:
        reference = parse_reference(model)
        manifest = _manifest(reference.name)
        hashes[model] = manifest.made_from.weights_sha256 if manifest else None
        note = own_base(given, reference, manifest)
        if given and same_base(note, noted(Checkpoint(base))) is not True:
            raise PvMergeError(
                f"{model}: says base: {given}, which is not {base}; {ALLOW}", Topic.BASE
            )
    own = cheap_hash(Checkpoint(base)) if any(hashes.values()) else None
    for model in from_other_bases(hashes, own) if own else ():
        raise PvMergeError(
            f"{model}: was made from another base than {base} (its manifest's hash of the base's "
            f"weights differs); {ALLOW}",
            Topic.BASE,
        )


def _manifest(folder: str) -> Manifest | None:
    return read_manifest(folder) if Path(folder).is_dir() else None
