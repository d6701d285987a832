"""A training that makes one model: a base by fine-tuning, or a reward model."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder
from pv_merge.errors import PvMergeError
from trainers import ranks
from trainers.manifest import read_manifest, write_manifest
from trainers.model import load_tokenizer, local_base
from trainers.progress import no_future_warnings, progress_bar, quiet_libraries
from trainers.run_folder import RunFolder
from trainers.session import Outcome, Session, finish_folder, manifest_part, save_weights
from trainers.settings import TrainingSettings

if TYPE_CHECKING:
    from rich.progress import Progress


def train_one(
    run: Callable[[RunFolder, Progress], SingleRun],
    settings: TrainingSettings,
    kind: str,
    name: str,
    resume: bool,
) -> Outcome:
    """Make a run and execute it, unless it is finished already, which only ``resume`` allows."""
    folder = RunFolder(Path(settings.output_dir))

    def finished() -> dict[str, Any] | None:
        if not resume:
            folder.refuse_existing()
        manifest = read_manifest(folder.final, kind)
        if manifest is not None:
            folder.clear()
        return manifest

    manifest = ranks.on_main(finished)
    if manifest is not None:
        return Outcome(name, folder.final, manifest["metrics"], skipped=True)
    quiet_libraries()
    with progress_bar() as bar:
        return run(folder, bar).execute()


class SingleRun(ABC):
    """One training from its data to its folder."""

    kind: str
    """What the manifest says that it is, and the key of its options in the config."""
    name: str
    """What the closing table calls it."""
    label: str
    """What the progress bar calls it."""

    def __init__(
        self, settings: TrainingSettings, data: Any, held_out: Any, folder: RunFolder, bar: Progress
    ) -> None:
        self.settings, self.data, self.held_out = settings, data, held_out
        self.folder, self.bar = folder, bar
        base = local_base(settings.base_model)
        self.tokenizer = load_tokenizer(settings.base_model)
        self.base_hash = ranks.on_main(lambda: weights_hash(base) if base else None)

    @abstractmethod
    def trainer(self, callbacks: list[Any]) -> Any:
        """Return TRL's trainer."""

    @abstractmethod
    def dropped(self, trainer: Any) -> dict[str, int]:
        """Return the rows left out, for each reason."""

    @abstractmethod
    def dataset_note(self) -> dict[str, Any]:
        """Return what the manifest says of the rows, besides their settings and fingerprint."""

    def finished_model(self, trainer: Any) -> Any:
        """Return the model to save."""
        return trainer.model

    def stored_dtype(self) -> str:
        """Return the dtype that the weights are stored in."""
        return self.settings.save_dtype

    def extra_files(self, folder: Path) -> None:
        """Write what belongs beside the weights."""
        self.tokenizer.save_pretrained(folder)

    def extra_manifest(self) -> dict[str, Any]:
        """Return what else the manifest says."""
        return {}

    def execute(self) -> Outcome:
        """Train, save, and return how it went."""
        identity = {
            "settings": self.settings.model_dump(mode="json", exclude={"output_dir"}),
            "base": self.base_hash,
            "data": [self.data.fingerprint(), self.held_out and self.held_out.fingerprint()],
            "processes": ranks.world_size(),
        }
        checkpoint = ranks.on_main(lambda: self.folder.begin(identity))
        session = Session(self.settings, checkpoint, self.bar, self.label)
        try:
            trainer = self._trainer(session)
            metrics = session.fit(trainer)
        except BaseException:
            if ranks.rank() == 0:
                self.folder.discard_if_untrained()
            raise
        self._save(trainer, session, metrics)
        left_out = ", ".join(
            f"{n} {why.replace('_', ' ')}" for why, n in self.dropped(trainer).items() if n
        )
        kept = len(trainer.train_dataset)
        notes = (f"{kept} rows; left out: {left_out or 'none'}", *session.notes())
        return Outcome(self.name, self.folder.final, metrics, notes)

    def _trainer(self, session: Session) -> Any:
        try:
            with no_future_warnings():
                return self.trainer(session.callbacks)
        except (ValueError, ImportError, RuntimeError, NotImplementedError) as error:
            raise PvMergeError(f"{self.kind}: {' '.join(str(error).split())}") from error

    def _save(self, trainer: Any, session: Session, metrics: dict[str, float]) -> None:
        main = ranks.rank() == 0
        trainer.model = self.finished_model(trainer)
        with tempfile.TemporaryDirectory(dir=self.folder.work) if main else nullcontext() as place:
            staged = Path(place) if place else None
            save_weights(trainer, staged)
            if staged is not None:
                with new_folder(self.folder.final) as folder:
                    log = trainer.state.log_history
                    finish_folder(folder, staged, self.settings, self.stored_dtype(), log)
                    self.extra_files(folder)
                    manifest = self._manifest(trainer, session, metrics)
                    write_manifest(folder, manifest, kind=self.kind)
        if main:
            self.folder.clear()
        ranks.wait()

    def _manifest(
        self, trainer: Any, session: Session, metrics: dict[str, float]
    ) -> dict[str, Any]:
        settings: Any = self.settings
        return {
            **self.extra_manifest(),
            "base_model": {"path": settings.base_model, "weights_sha256": self.base_hash},
            "dataset": {
                **settings.dataset.model_dump(exclude_none=True),
                **self.dataset_note(),
                "fingerprint": self.data.fingerprint(),
                "dropped": self.dropped(trainer),
            },
            "lora": settings.lora,
            self.kind: settings.options,
            **manifest_part(session, trainer, metrics),
        }
