"""One input of a recipe, open: a checkpoint, a dense vector, or an adapter over the base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pv_merge.arithmetic.low_rank_rows import Factors
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.manifest import BaseNote, Manifest, read_manifest
from pv_merge.artifacts.reference import parse_reference
from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.own_base import is_known, own_base
from pv_merge.recipe.recipe import RecipeInput

if TYPE_CHECKING:
    from pv_merge.arithmetic.low_rank import LowRank


class OpenInput:
    """An input's folder with its manifest. Raises ``PvMergeError`` where there is no such folder."""

    def __init__(self, said: RecipeInput) -> None:
        self.model, self.preference, self.polarity = said.model, said.preference, said.polarity
        self.reference = parse_reference(said.model)
        self.folder: Path = self.reference.folder
        if not self.folder.is_dir():
            raise PvMergeError(
                f"{self.folder}: no such folder (paths are relative to the current folder; a name on "
                "the Hub has no ./ before it)",
                Topic.FOLDER,
            )
        self.adapter = Adapter(self.folder) if is_adapter(self.folder) else None
        self.checkpoint = None if self.adapter else Checkpoint(self.reference.name)
        self.manifest = read_manifest(self.folder) or Manifest()
        self.own_base: BaseNote = own_base(said.base, self.reference, self.manifest)
        if self.adapter is not None and not is_known(self.own_base):
            self.own_base = BaseNote(path=self.adapter.base_model)
        self.said_base = said.base

    @property
    def over_base(self) -> bool:
        """Whether it is written ``BASE+ADAPTER``, which to mergekit is the adapter merged in."""
        return self.reference.over_base

    @property
    def is_vector(self) -> bool:
        """Whether the folder is a preference vector, by its manifest."""
        return self.manifest.is_vector

    @property
    def base_sha256(self) -> str | None:
        """The hash of the base's weights, where the manifest has it."""
        return self.manifest.made_from.weights_sha256

    def change(self, name: str) -> LowRank | None:
        """Return an adapter's change of one weight; None where it leaves it alone."""
        assert self.adapter is not None
        return self.adapter.change(name)

    def factors(self, name: str) -> Factors | None:
        """Return the same without torch, in float32."""
        assert self.adapter is not None
        if not name.endswith(".weight"):
            return None
        return self.adapter.factors.get(name.removesuffix(".weight"))
