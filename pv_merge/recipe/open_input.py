"""One input of a recipe, open: a checkpoint, a dense vector, or an adapter over the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pv_merge.arithmetic.low_rank import LowRank
from pv_merge.artifacts.adapter import Adapter
from pv_merge.artifacts.checkpoint import Checkpoint, is_adapter
from pv_merge.artifacts.folders import read_json
from pv_merge.artifacts.manifest import MANIFESTS
from pv_merge.artifacts.names import local_folder
from pv_merge.errors import PvMergeError, Topic
from pv_merge.recipe.recipe import RecipeInput


class OpenInput:
    """An input's folder with its manifest. Raises ``PvMergeError`` where there is no such folder."""

    def __init__(self, said: RecipeInput) -> None:
        self.model, self.preference, self.polarity = said.model, said.preference, said.polarity
        self.base_part, plus, lora = said.model.partition("+")
        self.over_base = bool(plus)
        """Whether it is written ``BASE+ADAPTER``, which to mergekit is the adapter merged in."""
        self.folder: Path = local_folder(lora if plus else said.model)
        if not self.folder.is_dir():
            raise PvMergeError(
                f"{self.folder}: no such folder (paths are relative to the current folder; a name on "
                "the Hub has no ./ before it)",
                Topic.FOLDER,
            )
        self.adapter = Adapter(self.folder) if is_adapter(self.folder) else None
        self.checkpoint = None if self.adapter else Checkpoint(lora if plus else said.model)
        self.manifest: Mapping[str, object] = _manifest(self.folder)

    @property
    def is_vector(self) -> bool:
        """Whether the folder is a preference vector, by its manifest."""
        return self.manifest.get("kind") == "preference_vector"

    @property
    def base_sha256(self) -> str | None:
        """The hash of the base's weights, where the manifest has it."""
        said = self.manifest.get("base") or self.manifest.get("base_model")
        value = said.get("weights_sha256") if isinstance(said, dict) else None
        return value if isinstance(value, str) else None

    def change(self, name: str) -> LowRank | None:
        """Return an adapter's change of one weight; None where it leaves it alone."""
        assert self.adapter is not None
        if not name.endswith(".weight"):
            return None
        return self.adapter.modules.get(name.removesuffix(".weight"))


def _manifest(folder: Path) -> Mapping[str, object]:
    for name in MANIFESTS:
        if (folder / name).exists():
            said = read_json(folder / name)
            return said if isinstance(said, dict) else {}
    return {}
