"""The quickstart's recipes, pairs and policies, which come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pv_merge
from pv_merge.artifacts.folders import new_folder, readable, refuse_existing
from pv_merge.errors import PvMergeError

PLACE = Path("recipes") / "quickstart"
"""Where they lie in the repository and in every folder that ``write_starter`` makes."""


def starter_folder() -> Path:
    """Return the folder that holds them: inside an installed package, or in the repository."""
    package = Path(pv_merge.__file__).parent
    places = (package.parent / PLACE, package / "start" / "quickstart")
    for place in places:
        if (place / "policies").is_dir():
            return place
    raise PvMergeError(
        f"{places[-1]}: the quickstart's files are missing; was the package built without them?"
    )


def write_starter(folder: Path) -> bool:
    """Copy them to ``folder/recipes/quickstart``; return False if that is there already.

    Raises ``PvMergeError`` if ``folder`` holds anything else.
    """
    if (folder / PLACE).is_dir():
        return False
    refuse_existing(folder)
    with new_folder(folder / PLACE) as work:
        for path in sorted(starter_folder().rglob("*")):
            if path.is_file():
                copy = work / path.relative_to(starter_folder())
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        readable(work)
    return True
