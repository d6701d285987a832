"""Supervised fine-tuning: the base that the policies start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTTrainer

from pv_merge.data.instructions import load_examples, to_rows
from pv_merge.errors import PvMergeError
from trainers.arguments import place_logs, sft_arguments
from trainers.dpo_trainer import completions_only
from trainers.model import load_model, lora_config
from trainers.precision import check_launcher
from trainers.session import Outcome
from trainers.settings import SFTSettings
from trainers.single_run import SingleRun, train_one


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
    check_launcher(settings, sft_arguments(settings, Path(settings.output_dir)))

    def run(*place: Any) -> SingleRun:
        held_out = load_examples(settings.eval_dataset) if settings.eval_dataset else None
        return _Run(settings, load_examples(settings.dataset), held_out, *place)

    return train_one(run, settings, "sft", "base", resume)


class _Run(SingleRun):
    settings: SFTSettings
    kind, name, label = "sft", "base", "supervised fine-tuning"

    def trainer(self, callbacks: list[Any]) -> CompletionTrainer:
        arguments = sft_arguments(self.settings, self.folder.work)
        place_logs(arguments, self.folder.final)
        if self.settings.lora is not None and (arguments.fsdp or arguments.deepspeed_plugin):
            raise PvMergeError("sft: a LoRA cannot be merged into sharded weights; leave lora out")
        chat = bool(self.tokenizer.chat_template or arguments.chat_template_path)
        rows: Dataset = to_rows(self.data.examples, chat)
        held_out = to_rows(self.held_out.examples, chat) if self.held_out else None
        return CompletionTrainer(
            model=load_model(self.settings),
            args=arguments,
            train_dataset=rows,
            eval_dataset=held_out,
            processing_class=self.tokenizer,
            peft_config=lora_config(self.settings),
            callbacks=callbacks,
        )

    def finished_model(self, trainer: Any) -> Any:
        if self.settings.lora is None:
            return trainer.model
        return trainer.accelerator.unwrap_model(trainer.model).float().merge_and_unload()

    def dropped(self, trainer: Any) -> dict[str, int]:
        return {
            "empty_answer": self.data.empty,
            "over_max_chars": self.data.long,
            "prompt_fills_max_length": trainer.filled,
        }

    def dataset_note(self) -> dict[str, Any]:
        return {"rows": len(self.data.examples)}
