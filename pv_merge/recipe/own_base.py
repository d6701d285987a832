"""The base that an input was made from, where that is not the one that it is put on.

A preference is φ = Σ ±(policy − its own base). Whatever base the merge starts from drops out of that
as long as each policy's own base is subtracted as often as the policy is added. For a pair of one base
nothing has to be read for it; for a lone policy its base is one more input, on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pv_merge.artifacts.base_hash import cheap_hash, same_base
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import kind_problems, shape_problems
from pv_merge.artifacts.manifest import BaseNote, Manifest
from pv_merge.artifacts.reference import Reference, cached_folder
from pv_merge.errors import PvMergeError, Topic, raise_all


@dataclass(frozen=True)
class PolicySide:
    """A policy whose weights are read in full, with the base that it was trained from."""

    model: str
    """How the recipe names it, for messages."""
    preference: str
    polarity: str
    """``positive`` or ``negative``."""
    base: BaseNote
    """Empty where nothing says it."""


@dataclass(frozen=True)
class Origin:
    """A base that policies of one preference count from, and that the policies do not cancel."""

    preference: str
    checkpoint: Checkpoint
    times: int
    """How often it is subtracted; below 0 it is added."""

    @property
    def polarity(self) -> str:
        """The side on which it counts."""
        return "negative" if self.times > 0 else "positive"


def own_base(said: str, reference: Reference, manifest: Manifest | None) -> BaseNote:
    """Return the base that an input was made from: as the recipe says, as it is written, by manifest.

    To mergekit ``BASE+ADAPTER`` is that base with the adapter merged in, whatever it was trained on.
    """
    if reference.base is not None:
        return BaseNote(path=reference.base)
    made_from = manifest.made_from if manifest is not None else BaseNote()
    known = made_from.weights_sha256
    if said and known is None and cached_folder(said) is not None:
        known = cheap_hash(Checkpoint(said))
    return BaseNote(path=said or made_from.path, weights_sha256=known)


def noted(base: Checkpoint) -> BaseNote:
    """Return a base as it is compared with what manifests say."""
    return BaseNote(path=base.name, weights_sha256=cheap_hash(base))


def is_known(note: BaseNote) -> bool:
    """Return whether anything says which base it is."""
    return bool(note.path or note.weights_sha256)


def origins(base: Checkpoint, sides: Iterable[PolicySide]) -> list[Origin]:
    """Return what must be subtracted besides, for policies of other bases than ``base``.

    Raises ``PvMergeError`` where a policy's base is needed and neither recipe nor manifest names it,
    where it is not here, or where it does not fit ``base``.
    """
    merged_on = noted(base)
    by_preference: dict[str, list[PolicySide]] = {}
    for side in sides:
        by_preference.setdefault(side.preference, []).append(side)
    found = []
    for preference, group in by_preference.items():
        for members in _by_base(group):
            times = sum(1 if side.polarity == "positive" else -1 for side in members)
            if times and same_base(members[0].base, merged_on) is not True:
                origin = _opened(members)
                _refuse_unfit(base, origin)
                found.append(Origin(preference, origin, times))
    return found


def _by_base(sides: Sequence[PolicySide]) -> list[list[PolicySide]]:
    """Return the sides in groups of one base; those of which nothing is known are one, if all are."""
    known = [side for side in sides if is_known(side.base)]
    unknown = [side for side in sides if not is_known(side.base)]
    if known and unknown:
        raise _unknown(unknown[0], f"the base of {known[0].model} is")
    groups: list[list[PolicySide]] = [unknown] if unknown else []
    for side in known:
        for group in groups:
            if same_base(group[0].base, side.base) is True:
                group.append(side)
                break
        else:
            groups.append([side])
    return groups


def _unknown(side: PolicySide, why: str) -> PvMergeError:
    return PvMergeError(
        f"{side.model}: no manifest names the base that it was trained from, and {why}; say base: "
        "FOLDER at this input",
        Topic.BASE,
    )


def _opened(members: Sequence[PolicySide]) -> Checkpoint:
    """Return the base of some policies. Raises ``PvMergeError`` if it is not here or not the one."""
    side = next((item for item in members if item.base.path), members[0])
    if side.base.path is None:
        raise _unknown(side, f"{side.preference} has no other policy of that base")
    if cached_folder(side.base.path) is None:
        raise PvMergeError(
            f"{side.model}: was trained from {side.base.path}, which is not here, and "
            f"{side.preference} is formed against it; say base: FOLDER at this input",
            Topic.FOLDER,
        )
    found = Checkpoint(side.base.path)
    hashes = {item.base.weights_sha256 for item in members} - {None}
    if hashes and cheap_hash(found) not in (None, *hashes):
        raise PvMergeError(
            f"{side.model}: {side.base.path} is not the base that it was trained from (its manifest's "
            "hash of the base's weights differs); say base: FOLDER at this input",
            Topic.BASE,
        )
    return found


def _refuse_unfit(base: Checkpoint, origin: Checkpoint) -> None:
    problems = shape_problems(base, origin) + kind_problems(base, origin)
    problems += [
        f"{origin}: lacks {name}, which the base {base} has"
        for name in base.names
        if name not in origin
    ][:1]
    raise_all(problems, Topic.BASE)
