"""The folders of a run: where it works, where its result appears, and what a resumed run finds."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from pv_merge.artifacts.folders import write_json
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError

SECONDS = "pv_seconds.json"


class RunFolder:
    """A result that appears by rename in ``final``, and the checkpoints on the way in ``work``."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.work = final.parent / f".{final.name}.unfinished"
        self._made_parent = False

    def refuse_existing(self) -> None:
        """Raise ``PvMergeError`` if there is a run here already, finished or not."""
        for folder, state in ((self.final, "a finished"), (self.work, "an unfinished")):
            if folder.exists() and (folder == self.work or any(folder.iterdir())):
                raise PvMergeError(
                    f"{self.final}: already holds {state} run; add --resume to "
                    "finish it, or name another output_dir"
                )

    def begin(self, identity: dict[str, Any]) -> Path | None:
        """Return the last whole checkpoint, if any, of a run with the same ``identity``.

        Raises ``PvMergeError`` if the run that stands here was begun with another.
        """
        identity = json.loads(json.dumps(identity))
        place = self.work / "identity.json"
        if place.exists() and read_object(place) != identity:
            raise PvMergeError(
                f"{self.work}: was begun with another config, base or data; restore those to "
                "resume it, or delete it to start anew"
            )
        self._made_parent = not self.final.parent.exists()
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(place, identity)
        found = [path for path in self.work.glob("checkpoint-*") if _whole(path)]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def discard_if_untrained(self) -> None:
        """Remove the work folder unless it holds a checkpoint that a resumed run can use."""
        if self.work.exists() and not any(_whole(path) for path in self.work.glob("checkpoint-*")):
            shutil.rmtree(self.work, ignore_errors=True)
            if self._made_parent:
                with suppress(OSError):  # it holds something else by now
                    self.final.parent.rmdir()

    def clear(self) -> None:
        """Remove the work folder, and what a kill in the middle of a rename may have left."""
        for path in self.final.parent.glob(f".{self.final.name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def seconds_before(checkpoint: Path | None) -> float:
    """Return the seconds that were spent until ``checkpoint``."""
    if checkpoint is None or not (checkpoint / SECONDS).exists():
        return 0.0
    return float(read_object(checkpoint / SECONDS)["seconds"])


def tokens_before(checkpoint: Path | None) -> int:
    """Return the tokens that were trained on until ``checkpoint``."""
    if checkpoint is None:
        return 0
    logs = read_object(checkpoint / "trainer_state.json")["log_history"]
    return int(max((log.get("num_tokens", 0) for log in logs), default=0))


def _whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end, of which the trainer's state is the last."""
    try:
        read_object(checkpoint / "trainer_state.json")
    except PvMergeError:
        return False
    return True
