"""The two policies that a vector is made of: their base, their roles, their difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank, concatenated
from pv_merge.artifacts.base_hash import same_base, weights_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.manifest import public_path
from pv_merge.artifacts.names import checked_name, name_problem
from pv_merge.artifacts.policy import Policy
from pv_merge.artifacts.reference import local_folder, portable
from pv_merge.errors import PvMergeError, Topic

KEPT = ("polarity", "dataset", "lora", "seed", "dpo", "metrics", "versions")
"""What a vector's manifest takes over from those of its policies."""


@dataclass(frozen=True)
class Deltas:
    """What two policies make of one weight, in float32; None where they leave it alone."""

    positive: Tensor | None
    negative: Tensor | None
    phi: Tensor | None
    stored: tuple[Tensor, ...] = ()
    """The weight of each policy that holds it in full."""


class PolicyPair:
    """A positive and a negative policy."""

    def __init__(self, positive: str | Path, negative: str | Path) -> None:
        self.positive, self.negative = Policy(positive), Policy(negative)

    @property
    def both(self) -> tuple[Policy, Policy]:
        """The positive and the negative one."""
        return self.positive, self.negative

    @property
    def adapters(self) -> bool:
        """Whether both are adapters, so that their difference is exactly low-rank."""
        return all(side.adapter is not None for side in self.both)

    def base(self, said: str | None, allow_different: bool) -> tuple[str, Checkpoint]:
        """Return the base's name and checkpoint; refuse policies that were trained from two bases.

        ``said`` is its folder where neither manifest nor adapter names it.
        """
        first, second = self.both
        hashes = {side.base_sha256 for side in self.both} - {None}
        if same_base(first.base_note, second.base_note) is False and not allow_different:
            raise PvMergeError(
                f"{first} was trained from {first.base_model}, {second} from {second.base_model}"
                f"{' (their weights differ)' if len(hashes) > 1 else ''}; "
                "add --allow-different-bases if this is meant",
                Topic.BASE,
            )
        name = said or first.base_model or second.base_model
        if name is None:
            raise PvMergeError(
                f"{first} and {second}: neither a manifest nor an adapter's config names the base; "
                "say --base FOLDER",
                Topic.BASE,
            )
        if not local_folder(name).is_dir():
            raise PvMergeError(
                f"{name}: no such folder; it is the base that {first} names, relative to the current "
                "folder; say --base FOLDER if it lies elsewhere",
                Topic.FOLDER,
            )
        base = Checkpoint(name)
        if len(hashes) == 1 and weights_hash(base) not in hashes and not allow_different:
            raise PvMergeError(
                f"{name}: its weights are not those that {first} and {second} were trained from; "
                "add --allow-different-bases if this is meant",
                Topic.BASE,
            )
        return name, base

    def problems(self, base: Checkpoint) -> list[str]:
        """Return a line for each thing in which they fit neither each other nor the base."""
        problems = []
        for side, role in zip(self.both, ("positive", "negative"), strict=True):
            said = side.manifest.polarity
            if said and said != role:
                problems.append(
                    f"{side}: its manifest says {said}, it was given as the {role}; are they swapped?"
                )
        names = [side.manifest.preference for side in self.both]
        if all(names) and names[0] != names[1]:
            problems.append(
                f"{self.positive} is of the preference {names[0]}, {self.negative} of {names[1]}"
            )
        return problems + [problem for side in self.both for problem in side.problems(base)]

    def preference(self, said: str | None, target: Path) -> str:
        """Return the preference's name: as ``said``, else as a manifest has it, else the folder's."""
        name = said or self.positive.manifest.preference or self.negative.manifest.preference
        if name:
            return checked_name(name)
        problem = name_problem(target.name)
        if problem is not None:
            raise PvMergeError(f"no manifest names the preference, and {problem}; say --name NAME")
        return target.name

    def deltas(self, name: str, weight: Tensor) -> Deltas:
        """Return each policy's delta of one weight of the base, and φ, the first minus the second."""
        positive, negative = (side.delta(name, weight) for side in self.both)
        phi = positive
        if negative is not None:
            phi = -negative if positive is None else positive - negative
        held = (side.stored(name) for side in self.both)
        return Deltas(positive, negative, phi, tuple(side for side in held if side is not None))

    def change(self, name: str) -> LowRank:
        """Return φ of a weight that at least one of two adapters changes, exactly."""
        sides = zip((1.0, -1.0), self.both, strict=True)
        found = [(sign, side.change(name)) for sign, side in sides]
        return concatenated([(sign, part) for sign, part in found if part is not None], name)


def origin(side: Policy) -> dict[str, object]:
    """Return what a vector's manifest says of one policy."""
    said = side.manifest.data
    form = "adapter" if side.adapter else "checkpoint"
    path = public_path(portable(str(side)))
    return {"path": path, "form": form} | {key: said[key] for key in KEPT if key in said}
