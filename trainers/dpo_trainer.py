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

from pv_merge.data.encoding import Encoded
from pv_merge.data.token_tree import UNSCORED, tree_order
from pv_merge.data.tree_attention import attend_to_trees, why_not
from pv_merge.errors import PvMergeError
from pv_merge.progress import say
from trainers import ranks
from trainers.reference import ReferenceStore, Sequence_, longest_first, reference_columns
from trainers.tree import TOLERANCE, AsTree, largest_difference

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
        self, *args: Any, store: ReferenceStore | None, bar: Progress, tree: bool, **kwargs: Any
    ) -> None:
        self._store, self._bar = store, bar
        self.reference_computed = 0
        self.tree = tree
        """Whether batches are read as trees of tokens: as asked, if the model can."""
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
                label = f"reference pass ({name})"
                task = self._bar.add_task(label, total=total, note="", unit="sequence")
            self._bar.update(task, completed=done)

        if name == "train":
            self._check_positions()
            self.tree = self.tree and self._can_read_trees()
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
            order=_by_prefix if self.tree else longest_first,
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

    @property
    def _longest(self) -> int:
        """Tokens of the longest sequence that the model is given."""
        sets: Any = (self.train_dataset, self.eval_dataset)
        longest: int = max(max(rows["length"]) for rows in sets if rows is not None)
        return min(longest, self.args.max_length or longest)

    def _check_positions(self) -> None:
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self._longest > positions:
            raise PvMergeError(
                f"dpo: a row has {self._longest} tokens, and the base has positions for {positions}; "
                f"set max_length to {positions} or less"
            )

    def _can_read_trees(self) -> bool:
        """Have the models understand trees; where they do not, say why and leave them as they are."""
        models = [self.accelerator.unwrap_model(self.model), self.ref_model]
        bases = [getattr(m, "get_base_model", lambda m=m: m)() for m in models if m is not None]
        if self.ref_model is not None:
            bases[-1] = self.accelerator.unwrap_model(bases[-1])
        reason = self._why_no_trees(bases[0])
        if reason is None:
            before = [attend_to_trees(base) for base in bases]
            reason = self._trial()
            if reason is not None:
                for base, name in zip(bases, before, strict=True):
                    base.set_attn_implementation(name)
        if reason is not None:
            say(self._bar, f"no tree of tokens: the model {reason}")
        return reason is None

    def _why_no_trees(self, base: Any) -> str | None:
        if self.aux_loss_enabled:
            return "balances its experts by counting tokens (router_aux_loss_coef: 0 ends that)"
        if self.args.torch_compile:
            return "is compiled"
        return why_not(base, self._longest)

    def _trial(self) -> str | None:
        """Compare a tree with padded rows on the longest pairs."""
        every: Any = self.train_dataset
        rows = sorted(every, key=lambda row: -row["length"])[:2]
        inputs = self.data_collator(rows)
        labels = inputs["input_ids"].masked_fill(inputs.pop("completion_mask") == 0, UNSCORED)
        inputs = {k: v.to(self.accelerator.device) for k, v in {**inputs, "labels": labels}.items()}
        model = self._reference_model()
        was_training = model.training
        model.eval()
        try:
            with completions_only(), self.accelerator.autocast():
                found = largest_difference(model, inputs)
        except (TypeError, ValueError, RuntimeError) as error:
            return f"cannot be called with one ({' '.join(str(error).split())})"
        finally:
            model.train(was_training)
        narrow = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = narrow.get(self.accelerator.mixed_precision, self.model.dtype)
        if all(value <= TOLERANCE.get(dtype, 0.1) for value in ranks.gather(found)):
            return None
        return f"gives other values ({found:.1e} nats of a token)"

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
            values = torch.cat(self.compute_ref_log_probs(self._reading(model), inputs))
        model.train(was_training)
        self.reference_computed += len(sequences)
        return [float(value) for value in values.double()]

    def _reading(self, model: Any) -> Any:
        return AsTree(model) if self.tree else model

    def _reference_model(self) -> Any:
        """Return the model that computes the reference, as TRL chooses it."""
        if self.ref_model is None and self.is_deepspeed_enabled:
            if self._precompute_engine is None:
                self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
            return self._precompute_engine
        return self.ref_model if self.ref_model is not None else self.model

    def _compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        with completions_only():
            return super()._compute_loss(self._reading(model), *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the manifest is the record, and the card is made from it on publishing."""


def _by_prefix(sequences: list[Sequence_]) -> list[int]:
    return tree_order([Encoded((*prompt, *answer), len(prompt)) for prompt, answer in sequences])


def _spread(values: list[float], places: list[int], length: int) -> list[float]:
    spread = [math.nan] * length
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def _padded(parts: list[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)
