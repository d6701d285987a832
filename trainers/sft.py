"""Supervised fine-tuning: the base that the policies start from."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl import SFTTrainer

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder
from pv_merge.data.instructions import Examples, load_examples, to_rows
from pv_merge.errors import PvMergeError
from trainers import ranks
from trainers.arguments import place_logs, sft_arguments
from trainers.dpo_trainer import completions_only
from trainers.manifest import read_manifest, write_manifest
from trainers.model import load_model, load_tokenizer, local_base, lora_config
from trainers.precision import check_launcher
from trainers.progress import no_future_warnings, progress_bar, quiet_libraries
from trainers.run_folder import RunFolder
from trainers.session import Outcome, Session, finish_folder, manifest_part, save_weights
from trainers.settings import SFTSettings

if TYPE_CHECKING:
    from rich.progress import Progress


class CompletionTrainer(SFTTrainer):
    """TRL's SFTTrainer, which counts the rows that it drops, and scores the answers only."""

    filled = 0
    """Training rows dropped because the prompt alone fills ``max_length``."""

    def _prepare_dataset(
        self, dataset: Any, tokenizer: Any, args: Any, packing: bool, formatting: Any, name: str
    ) -> Any:
        rows = super()._prepare_dataset(dataset, tokenizer, args, packing, formatting, name)
        # TRL leaves out the rows of which max_length cuts off all that is to be learned.
        if not len(rows):
            raise PvMergeError(
                f"in each of {len(dataset)} rows the prompt alone fills max_length: "
                f"{args.max_length} tokens; raise it"
            )
        if name == "train" and not packing:
            self.filled = len(dataset) - len(rows)
        return rows

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss."""
        with completions_only():
            return super().compute_loss(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the manifest is the record."""


def train_base(settings: SFTSettings, resume: bool = False) -> Outcome:
    """Train a base and return how it went; it appears by rename as ``output_dir``.

    A LoRA is merged into the weights, so that the result is a whole checkpoint either way. Raises
    ``PvMergeError`` before any training if the folder already holds a run and ``resume`` is not
    set, or if the model or the data cannot be used.
    """
    folder = RunFolder(Path(settings.output_dir))
    arguments = sft_arguments(settings, folder.work)
    check_launcher(settings, arguments)

    def finished() -> dict[str, Any] | None:
        if not resume:
            folder.refuse_existing()
        manifest = read_manifest(folder.final, "sft")
        if manifest is not None:
            folder.clear()
        return manifest

    manifest = ranks.on_main(finished)
    if manifest is not None:
        return Outcome("base", folder.final, manifest["metrics"], skipped=True)
    quiet_libraries()
    with progress_bar() as bar:
        return _Run(settings, folder, bar).execute()


class _Run:
    def __init__(self, settings: SFTSettings, folder: RunFolder, bar: Progress) -> None:
        self.settings, self.folder, self.bar = settings, folder, bar
        base = local_base(settings.base_model)
        self.tokenizer = load_tokenizer(settings.base_model)
        self.data = load_examples(settings.dataset)
        self.held_out = load_examples(settings.eval_dataset) if settings.eval_dataset else None
        self.base_hash = ranks.on_main(lambda: weights_hash(base) if base else None)

    def execute(self) -> Outcome:
        identity = {
            "settings": self.settings.model_dump(mode="json", exclude={"output_dir"}),
            "base": self.base_hash,
            "data": [self.data.fingerprint(), self.held_out and self.held_out.fingerprint()],
            "processes": ranks.world_size(),
        }
        checkpoint = ranks.on_main(lambda: self.folder.begin(identity))
        session = Session(self.settings, checkpoint, self.bar, "supervised fine-tuning")
        try:
            trainer = self._trainer(session)
            metrics = session.fit(trainer)
        except BaseException:
            if ranks.rank() == 0:
                self.folder.discard_if_untrained()
            raise
        self._save(trainer, session, metrics)
        dropped = self._dropped(trainer)
        left_out = ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in dropped.items() if n)
        kept = len(self.data.examples) - trainer.filled
        notes = (f"{kept} rows; left out: {left_out or 'none'}", *session.notes())
        return Outcome("base", self.folder.final, metrics, notes)

    def _trainer(self, session: Session) -> CompletionTrainer:
        arguments = sft_arguments(self.settings, self.folder.work)
        place_logs(arguments, self.folder.final)
        if self.settings.lora is not None and (arguments.fsdp or arguments.deepspeed_plugin):
            raise PvMergeError("sft: a LoRA cannot be merged into sharded weights; leave lora out")
        chat = bool(self.tokenizer.chat_template or arguments.chat_template_path)
        rows: Dataset = to_rows(self.data.examples, chat)
        held_out = to_rows(self.held_out.examples, chat) if self.held_out else None
        try:
            with no_future_warnings():
                return CompletionTrainer(
                    model=load_model(self.settings),
                    args=arguments,
                    train_dataset=rows,
                    eval_dataset=held_out,
                    processing_class=self.tokenizer,
                    peft_config=lora_config(self.settings),
                    callbacks=session.callbacks,
                )
        except (ValueError, ImportError, RuntimeError, NotImplementedError) as error:
            raise PvMergeError(f"sft: {' '.join(str(error).split())}") from error

    def _save(self, trainer: Any, session: Session, metrics: dict[str, float]) -> None:
        settings = self.settings
        main = ranks.rank() == 0
        if settings.lora is not None:
            trainer.model = (
                trainer.accelerator.unwrap_model(trainer.model).float().merge_and_unload()
            )
        with tempfile.TemporaryDirectory(dir=self.folder.work) if main else nullcontext() as place:
            staged = Path(place) if place else None
            save_weights(trainer, staged)
            if staged is not None:
                with new_folder(self.folder.final) as folder:
                    log = trainer.state.log_history
                    finish_folder(folder, staged, settings, settings.save_dtype, log)
                    trainer.processing_class.save_pretrained(folder)
                    write_manifest(folder, self._manifest(trainer, session, metrics), kind="sft")
        if main:
            self.folder.clear()
        ranks.wait()

    def _dropped(self, trainer: Any) -> dict[str, int]:
        data: Examples = self.data
        return {
            "empty_answer": data.empty,
            "over_max_chars": data.long,
            "prompt_fills_max_length": trainer.filled,
        }

    def _manifest(
        self, trainer: Any, session: Session, metrics: dict[str, float]
    ) -> dict[str, Any]:
        settings = self.settings
        return {
            "base_model": {"path": settings.base_model, "weights_sha256": self.base_hash},
            "dataset": {
                **settings.dataset.model_dump(exclude_none=True),
                "rows": len(self.data.examples),
                "fingerprint": self.data.fingerprint(),
                "dropped": self._dropped(trainer),
            },
            "lora": settings.lora,
            "sft": settings.sft,
            **manifest_part(session, trainer, metrics),
        }
