"""A trained policy, as an adapter or a checkpoint: its change of each weight of the base."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.fit import kind_problems, shape_problems
from pv_merge.artifacts.manifest import RUN_MANIFEST, BaseNote, Manifest, read_manifest
from pv_merge.artifacts.reference import local_folder
from pv_merge.errors import PvMergeError


class Policy:
    """One policy's folder. Raises ``PvMergeError`` where it is neither adapter nor checkpoint."""

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        self.folder = local_folder(folder)
        if not self.folder.is_dir():
            raise PvMergeError(f"{folder}: no such folder")
        self.adapter = Adapter(self.folder) if is_adapter(self.folder) else None
        self.checkpoint = None if self.adapter else Checkpoint(folder)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def manifest(self) -> Manifest:
        """What ``pv-train`` wrote about it; empty where it did not."""
        return read_manifest(self.folder, RUN_MANIFEST) or Manifest()

    @property
    def base_model(self) -> str | None:
        """The base that the manifest names, else the one in the adapter's config."""
        said = self.manifest.made_from.path
        return said or (self.adapter.base_model if self.adapter else None)

    @property
    def base_note(self) -> BaseNote:
        """The base that it was trained from, as far as that is known."""
        return BaseNote(path=self.base_model, weights_sha256=self.base_sha256)

    @property
    def base_sha256(self) -> str | None:
        """The hash of the base's weights, where the manifest has it."""
        return self.manifest.made_from.weights_sha256

    def problems(self, base: Checkpoint) -> list[str]:
        """Return one line for everything in which the policy does not fit the base."""
        if self.adapter is not None:
            return self.adapter.problems(base)
        assert self.checkpoint is not None
        found = shape_problems(base, self.checkpoint) + kind_problems(base, self.checkpoint)
        missing = [name for name in base.names if name not in self.checkpoint]
        extra = [name for name in self.checkpoint.names if name not in base]
        if missing:
            found.append(
                f"{self}: lacks {missing[0]}{_more(missing)}, which the base {base} has; "
                "it would be dropped"
            )
        if extra:
            tied = (
                " (is the head tied in the base and untied here?)" if "lm_head" in extra[0] else ""
            )
            found.append(f"{self}: has {extra[0]}{_more(extra)}, which the base {base} lacks{tied}")
        return found

    def change(self, name: str) -> LowRank | None:
        """Return the low-rank change of a weight; None where an adapter leaves it alone."""
        assert self.adapter is not None
        return self.adapter.change(name)

    def stored(self, name: str) -> Tensor | None:
        """Return a weight as the policy's checkpoint stores it; None where an adapter is all there is."""
        return None if self.checkpoint is None else self.checkpoint.tensor(name)

    def delta(self, name: str, base: Tensor) -> Tensor | None:
        """Return policy − base of one tensor in float32, or None where nothing changed."""
        if self.adapter is not None:
            change = self.change(name)
            return None if change is None else change.dense()
        assert self.checkpoint is not None
        own = self.checkpoint.tensor(name)
        if own.dtype == base.dtype and torch.equal(own, base):
            return None
        return own.float() - base.float()


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
