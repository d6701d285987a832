"""Extraction: from a positive and a negative policy to the preference vector between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, concatenated, truncated
from pv_merge.arithmetic.measures import square_sum
from pv_merge.artifacts.adapter_folder import write_low_rank
from pv_merge.artifacts.base_hash import same_base, weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.fit import unmergeable
from pv_merge.artifacts.folders import new_folder, refuse_existing, write_json
from pv_merge.artifacts.manifest import VECTOR_MANIFEST, public_path
from pv_merge.artifacts.names import checked_name
from pv_merge.artifacts.policy import Policy
from pv_merge.artifacts.protection import is_protected
from pv_merge.artifacts.reference import local_folder, portable, without_revision
from pv_merge.artifacts.vector_folder import write_dense
from pv_merge.artifacts.weight_names import is_linear
from pv_merge.errors import PvMergeError, raise_all
from pv_merge.merging.sums import Sums
from pv_merge.version import __version__


@dataclass(frozen=True)
class Options:
    """How to extract."""

    base: str | None = None
    """The base's folder, where neither manifest nor adapter names it."""
    name: str | None = None
    """The preference's name, where the manifests do not have it."""
    low_rank: bool = False
    """Write an adapter of rank 2r rather than a tensor for each weight."""
    rank: int | None = None
    """Rank to keep for each weight, of policies that are checkpoints."""
    energy: float | None = None
    """Share of each ‖φ‖² to keep, of policies that are checkpoints."""
    dtype: str = "float32"
    """Dtype that the deltas are stored in."""
    allow_different_bases: bool = False
    """Subtract policies of two bases all the same."""


def extract(
    positive: str | Path,
    negative: str | Path,
    output: str | Path,
    options: Options | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write φ = θ+ − θ− (Eq. 4) to ``output`` and return its manifest.

    Raises ``PvMergeError`` if the policies do not fit one base or each other; ``advance`` is told
    (weights done, weights in all).

    >>> import pv_merge
    >>> options = pv_merge.ExtractOptions(low_rank=True)
    >>> manifest = pv_merge.extract("positive", "negative", "vectors/new", options)
    >>> manifest["preference"], manifest["form"], manifest["rank"]
    ('polite', 'low-rank', 8)
    """
    options = options or Options()
    target = Path(output)
    sides = Policy(positive), Policy(negative)
    base_name, base = find_base(sides, options)
    refuse_existing(target, apart_from=[base.folder, *(side.folder for side in sides)])
    raise_all(
        unmergeable(base)
        + _role_problems(sides)
        + [p for side in sides for p in side.problems(base)]
    )
    name = _preference_name(sides, options)
    manifest: dict[str, Any] = {
        "kind": "preference_vector",
        "format": 1,
        "preference": name,
        "protected": is_protected(name, *(side.manifest.protected for side in sides)),
        "form": "low-rank" if options.low_rank else "dense",
        "dtype": options.dtype,
        "base": {"path": portable(base_name), "weights_sha256": weights_hash(base)},
        "positive": _origin(sides[0]),
        "negative": _origin(sides[1]),
    }
    sums = Sums()
    total = len(base.names)
    with new_folder(target) as work:
        if options.low_rank:
            changes = _low_rank(sides, base, options, sums, lambda done: advance(done, total))
            manifest["rank"] = write_low_rank(
                work, changes, base, without_revision(base_name), options.dtype
            )
            error = (sums.lost / sums.phi) ** 0.5 if sums.phi else 0.0
            manifest["relative_error"] = error
        else:

            def phi(name: str, weight: Tensor) -> Tensor | None:
                return _phi(sides, name, weight, sums)

            write_dense(work, phi, base, options.dtype, lambda done: advance(done, total))
        manifest["measures"] = sums.measures()
        manifest["pv_merge"] = __version__
        if not sums.moved:
            raise PvMergeError(f"{positive} and {negative} are the same; was one trained twice?")
        write_json(work / VECTOR_MANIFEST, manifest)
    return manifest


def find_base(sides: tuple[Policy, Policy], options: Options) -> tuple[str, Checkpoint]:
    """Return the base's name and checkpoint; refuse policies that were trained from two bases."""
    first, second = sides
    hashes = {side.base_sha256 for side in sides} - {None}
    differ = same_base(first.base_note, second.base_note) is False
    if differ and not options.allow_different_bases:
        raise PvMergeError(
            f"{first} was trained from {first.base_model}, {second} from {second.base_model}"
            f"{' (their weights differ)' if len(hashes) > 1 else ''}; "
            "add --allow-different-bases if this is meant"
        )
    name = options.base or first.base_model or second.base_model
    if name is None:
        raise PvMergeError(
            f"{first} and {second}: neither a manifest nor an adapter's config names the base; "
            "say --base FOLDER"
        )
    if not local_folder(name).is_dir():
        raise PvMergeError(
            f"{name}: no such folder; it is the base that {first} names, relative to the current "
            "folder; say --base FOLDER if it lies elsewhere"
        )
    base = Checkpoint(name)
    if len(hashes) == 1 and weights_hash(base) not in hashes and not options.allow_different_bases:
        raise PvMergeError(
            f"{name}: its weights are not those that {first} and {second} were trained from; "
            "add --allow-different-bases if this is meant"
        )
    return name, base


def _role_problems(sides: tuple[Policy, Policy]) -> list[str]:
    problems = []
    for side, role in zip(sides, ("positive", "negative"), strict=True):
        said = side.manifest.polarity
        if said and said != role:
            problems.append(
                f"{side}: its manifest says {said}, it was given as the {role}; are they swapped?"
            )
    names = [side.manifest.preference for side in sides]
    if all(names) and names[0] != names[1]:
        problems.append(f"{sides[0]} is of the preference {names[0]}, {sides[1]} of {names[1]}")
    return problems


def _preference_name(sides: tuple[Policy, Policy], options: Options) -> str:
    name = options.name or sides[0].manifest.preference or sides[1].manifest.preference
    if not name:
        raise PvMergeError("neither policy's manifest names the preference; say --name NAME")
    return checked_name(name)


def _origin(side: Policy) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "path": public_path(portable(str(side))),
        "form": "adapter" if side.adapter else "checkpoint",
    }
    kept = ("polarity", "dataset", "lora", "seed", "dpo", "metrics", "versions")
    return origin | {key: side.manifest.data[key] for key in kept if key in side.manifest.data}


def _phi(sides: tuple[Policy, Policy], name: str, weight: Tensor, sums: Sums) -> Tensor | None:
    positive, negative = (side.delta(name, weight) for side in sides)
    phi = positive
    if negative is not None:
        phi = -negative if positive is None else positive - negative
    sums.add(positive, negative, phi, [s for side in sides if (s := side.stored(name)) is not None])
    return phi


def _low_rank(
    sides: tuple[Policy, Policy],
    base: Checkpoint,
    options: Options,
    sums: Sums,
    advance: Callable[[int], None],
) -> dict[str, LowRank]:
    """Return φ of each linear weight: exact from adapters, a truncated SVD from checkpoints."""
    exact = all(side.adapter is not None for side in sides)
    if exact and (options.rank is not None or options.energy is not None):
        raise PvMergeError(
            "the low-rank form of two adapters is exact; --rank and --energy do not apply"
        )
    if not exact and options.rank is None and options.energy is None:
        raise PvMergeError(
            "the policies are checkpoints, so say which part to keep: --rank N or --energy 0.99"
        )
    changes: dict[str, LowRank] = {}
    for done, name in enumerate(base.names, start=1):
        weight = base.tensor(name)
        if weight.is_floating_point():
            phi = _phi(sides, name, weight, sums)
            if phi is not None and exact:
                found = [
                    (sign, side.change(name)) for sign, side in zip((1.0, -1.0), sides, strict=True)
                ]
                changes[name] = concatenated(
                    [(sign, part) for sign, part in found if part is not None]
                )
            elif phi is not None and is_linear(name, weight):
                a, b = truncated(phi, options.rank, options.energy)
                changes[name] = LowRank(a, b, 1.0)
                sums.lost += square_sum(phi - b @ a)
            elif phi is not None:
                sums.lost += square_sum(phi)
        advance(done)
    if not changes:
        raise PvMergeError(f"{sides[0]} and {sides[1]} do not differ in any linear layer")
    return changes
