"""TRL's DPOTrainer, with the reference pass shared and no position scored in vain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
import trl.trainer.dpo_trainer
import trl.trainer.utils
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.models.utils import prepare_deepspeed

from trainers.reference import ReferenceStore, Sequence_, reference_columns

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Have ``module.name`` be ``value`` within the block; do nothing if there is no such name."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def completions_only() -> Any:
    """Have TRL's LM head score only the positions that have a label, as it does on CUDA.

    On a CPU it scores the prompt and the padding too, and drops them: a third of a step.
    """
    return replaced(trl.trainer.utils, "_use_triton", lambda device: True)


class SharedReferenceTrainer(DPOTrainer):
    """TRL's DPOTrainer on tokenized rows, with reference log-probabilities from a store."""

    args: DPOConfig
    model: Any

    def __init__(
        self, *args: Any, store: ReferenceStore | None, bar: Progress, **kwargs: Any
    ) -> None:
        self._store, self._bar = store, bar
        self.reference_computed = 0
        with replaced(trl.trainer.dpo_trainer, "hash_module", lambda module: ""):
            # The hash of all weights names TRL's own cache, which is not used here.
            super().__init__(*args, **kwargs)
        self.ref_model = None
        if self.args.deepspeed_plugin is None and kwargs.get("peft_config") is not None:
            for parameter in self.model.parameters():
                if parameter.requires_grad and parameter.dtype.itemsize < 4:
                    # TRL trains an adapter on a quantized base in bfloat16, and so loses updates.
                    parameter.data = parameter.data.float()

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # The loader's copy has lost the column of lengths, by which rows may be grouped.
        return super()._get_train_sampler(self.train_dataset)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = self._bar.add_task(f"reference pass ({name})", total=total, note="")
            self._bar.update(task, completed=done)

        visited = self._visited(dataset) if name == "train" else None
        part = dataset if visited is None else dataset.select(visited)
        columns = reference_columns(
            part,
            self._store,
            self.args.max_length,
            2 * batch_size,
            self._reference,
            advance,
            keep_end=self.args.truncation_mode == "keep_end",
        )
        for column, values in zip(("ref_chosen_logps", "ref_rejected_logps"), columns, strict=True):
            if visited is not None:
                # Not a number: a row that is read after all would show in the loss, and stop the run.
                values = _spread(values, visited, len(dataset))
            dataset = dataset.add_column(column, values)
        return dataset

    def _visited(self, dataset: Dataset) -> list[int] | None:
        """Return the rows that a run shorter than one epoch reads, or None where it is all."""
        arguments = self.args
        ranks = self.accelerator.num_processes
        batches = arguments.max_steps * arguments.gradient_accumulation_steps * ranks
        rows = batches * arguments.per_device_train_batch_size
        if arguments.train_sampling_strategy != "random" or not 0 < rows < len(dataset):
            return None
        sampler: Any = self.get_train_dataloader().batch_sampler
        every_rank = getattr(sampler, "batch_sampler", sampler)
        return [index for batch in islice(every_rank, batches) for index in batch]

    def _reference(self, sequences: list[Sequence_]) -> list[float]:
        tokens = [torch.tensor([*prompt, *answer]) for prompt, answer in sequences]
        answers = [torch.tensor([0] * len(p) + [1] * len(a)) for p, a in sequences]
        inputs = {
            "input_ids": _padded(tokens, self._tokenizer.pad_token_id),
            "attention_mask": _padded([torch.ones_like(t) for t in tokens], 0),
            "completion_mask": _padded(answers, 0),
        }
        inputs = {key: value.to(self.accelerator.device) for key, value in inputs.items()}
        model = self._reference_model()
        was_training = model.training
        model.eval()
        with completions_only():
            values = torch.cat(self.compute_ref_log_probs(model, inputs))
        model.train(was_training)
        self.reference_computed += len(sequences)
        return [float(value) for value in values.double()]

    def _reference_model(self) -> Any:
        """Return the model that computes the reference, as TRL chooses it."""
        if self.ref_model is None and self.is_deepspeed_enabled:
            if self._precompute_engine is None:
                self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
            return self._precompute_engine
        return self.ref_model if self.ref_model is not None else self.model

    def _compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with completions_only():
            return super()._compute_loss(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the manifest is the record, and the card is made from it on publishing."""


def _spread(values: list[float], places: list[int], length: int) -> list[float]:
    spread = [math.nan] * length
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def _padded(parts: list[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)
