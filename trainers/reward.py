"""Reward models, trained on the pairs that policies are trained on: they score what policies say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import set_seed
from trl import RewardTrainer

from pv_merge.artifacts.reward import write_prompts
from pv_merge.data.pairs import load_pairs
from pv_merge.errors import PvMergeError
from trainers.arguments import place_logs, reward_arguments
from trainers.model import load_classifier, lora_config
from trainers.precision import check_launcher
from trainers.session import Outcome
from trainers.settings import RewardSettings
from trainers.single_run import SingleRun, train_one
from trainers.tokens import to_rows


class _Trainer(RewardTrainer):
    """TRL's RewardTrainer, which counts the rows that it drops."""

    long = 0
    """Training rows dropped because an answer exceeds ``max_length``."""

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        rows = super()._prepare_dataset(dataset, tokenizer, args, name)
        if not len(rows):
            raise PvMergeError(
                f"reward: each of {len(dataset)} rows has an answer that exceeds max_length: "
                f"{args.max_length} tokens; raise it"
            )
        if name == "train":
            self.long = len(dataset) - len(rows)
        return rows

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the manifest is the record."""


def train_reward(settings: RewardSettings, resume: bool = False) -> Outcome:
    """Train a reward model and return how it went; it appears by rename as ``output_dir``.

    With LoRA it is an adapter with its head, for the base that its config names. Raises
    ``PvMergeError`` before any training if the folder already holds a run and ``resume`` is not
    set, or if the model or the data cannot be used.
    """
    check_launcher(settings, reward_arguments(settings, Path(settings.output_dir)))

    def run(*place: Any) -> SingleRun:
        held_out = load_pairs(settings.eval_dataset) if settings.eval_dataset else None
        return _Run(settings, load_pairs(settings.dataset), held_out, *place)

    return train_one(run, settings, "reward", settings.preference, resume)


class _Run(SingleRun):
    settings: RewardSettings
    kind, label = "reward", "reward model"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.settings.preference

    def trainer(self, callbacks: list[Any]) -> _Trainer:
        settings = self.settings
        arguments = reward_arguments(settings, self.folder.work)
        place_logs(arguments, self.folder.final)
        chat = self.tokenizer.chat_template is not None
        set_seed(arguments.seed)  # the head is new
        return _Trainer(
            model=load_classifier(settings),
            args=arguments,
            train_dataset=to_rows(self.data.pairs, chat),
            eval_dataset=to_rows(self.held_out.pairs, chat) if self.held_out else None,
            processing_class=self.tokenizer,
            peft_config=lora_config(settings, "SEQ_CLS"),
            callbacks=callbacks,
        )

    def stored_dtype(self) -> str:
        settings = self.settings
        return settings.save_dtype if settings.lora is None else settings.adapter_dtype

    def extra_files(self, folder: Path) -> None:
        if self.settings.lora is None:
            super().extra_files(folder)
        write_prompts(folder, (pair.prompt[-1][1] for pair in self.data.pairs))

    def extra_manifest(self) -> dict[str, Any]:
        adapter = self.settings.lora is not None
        return {
            "preference": self.settings.preference,
            "adapter_dtype": self.settings.adapter_dtype if adapter else None,
        }

    def dropped(self, trainer: Any) -> dict[str, int]:
        return {**self.data.dropped(), "over_max_length": trainer.long}

    def dataset_note(self) -> dict[str, Any]:
        return {"pairs": len(self.data.pairs), "labels_swapped": False}
