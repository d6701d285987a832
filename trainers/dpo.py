"""DPO in both polarities: one base, one reference pass, two policies."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from pv_merge.base_identity import cache_folder, weights_hash
from pv_merge.checkpoint import Checkpoint
from pv_merge.errors import PvMergeError
from pv_merge.folders import new_folder, read_json, write_json
from trainers.manifest import hyperparameters, read_manifest, write_manifest
from trainers.preference_data import Pair, Pairs, load_pairs
from trainers.progress import ProgressCallback, Stopwatch, progress_bar
from trainers.reference import ReferenceStore, Sequence_, reference_columns
from trainers.settings import DPOSettings, Polarity, is_protected

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class Outcome:
    """How the training of one policy went."""

    polarity: Polarity
    folder: Path
    metrics: dict[str, float]
    skipped: bool = False


class SharedReferenceTrainer(DPOTrainer):
    """TRL's DPOTrainer that takes its reference log-probabilities from a ``ReferenceStore``."""

    def __init__(self, *args: Any, store: ReferenceStore, bar: Progress, **kwargs: Any) -> None:
        self._store, self._bar = store, bar
        super().__init__(*args, **kwargs)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = self._bar.add_task(f"reference pass ({name})", total=total, note="")
            self._bar.update(task, completed=done)

        chosen, rejected = reference_columns(
            dataset, self._store, self.args.max_length, 2 * batch_size, self._reference, advance
        )
        return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    def _reference(self, sequences: list[Sequence_]) -> list[float]:
        tokens = [torch.tensor([*prompt, *answer]) for prompt, answer in sequences]
        answers = [torch.tensor([0] * len(p) + [1] * len(a)) for p, a in sequences]
        limit = self.args.max_length
        inputs = {
            "input_ids": _padded(tokens, limit, self._tokenizer.pad_token_id),
            "attention_mask": _padded([torch.ones_like(t) for t in tokens], limit, 0),
            "completion_mask": _padded(answers, limit, 0),
        }
        inputs = {key: value.to(self.accelerator.device) for key, value in inputs.items()}
        was_training = self.model.training
        self.model.eval()
        values = torch.cat(self.compute_ref_log_probs(self.model, inputs))
        self.model.train(was_training)
        return [float(value) for value in values.double()]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the manifest is the record, and the card is made from it on publishing."""


def _padded(parts: list[torch.Tensor], limit: int | None, value: int) -> torch.Tensor:
    cut = [part[:limit] for part in parts]
    return torch.nn.utils.rnn.pad_sequence(cut, batch_first=True, padding_value=value)


def to_rows(pairs: Sequence[Pair], chat: bool) -> Dataset:
    """Return pairs as the rows that TRL reads: messages, or plain text without a chat template."""
    if not chat:
        return Dataset.from_list(
            [
                {
                    "prompt": "\n\n".join(text for _, text in pair.prompt) + "\n\n",
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                }
                for pair in pairs
            ]
        )
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": role, "content": text} for role, text in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def dpo_arguments(settings: DPOSettings, work: Path) -> DPOConfig:
    """Return TRL's config: the user's options over defaults that suit the machine."""
    cuda = torch.cuda.is_available()
    options: dict[str, Any] = {
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 25,
        "save_total_limit": 1,
        "report_to": "none",
        "dataloader_pin_memory": cuda,
        "use_cpu": not cuda,
    }
    options |= settings.dpo
    options |= {
        "output_dir": str(work),
        "precompute_ref_log_probs": True,
        "disable_tqdm": True,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return DPOConfig(**options)
    except (ValueError, TypeError) as error:
        raise PvMergeError(f"dpo: {' '.join(str(error).split())}") from None


def train(
    settings: DPOSettings, polarities: Sequence[Polarity], resume: bool = False
) -> list[Outcome]:
    """Train the policies and return how each went.

    Finished policies appear by rename as ``output_dir/positive`` and ``output_dir/negative``.
    Raises ``PvMergeError`` before any training if the folder already holds a run and ``resume``
    is not set, or if the base or the data cannot be used.
    """
    output = Path(settings.output_dir)
    _refuse_existing(output, polarities, resume)
    data = load_pairs(settings.dataset)
    held_out = load_pairs(settings.eval_dataset) if settings.eval_dataset else None
    base = _base(settings.base_model)
    base_hash = weights_hash(base) if base else None
    quiet_libraries()
    scope = f"{base_hash or settings.base_model} bf16={dpo_arguments(settings, output).bf16}"
    store_name = hashlib.sha256(scope.encode()).hexdigest()[:16]
    outcomes = []
    with progress_bar() as bar:
        for polarity in polarities:
            finished = read_manifest(output / polarity)
            if finished is not None:
                outcomes.append(Outcome(polarity, output / polarity, finished["metrics"], True))
                continue
            store = ReferenceStore(cache_folder() / "reference" / f"{store_name}.sqlite", scope)
            try:
                run = _Run(settings, polarity, data, held_out, base_hash, store, bar)
                outcomes.append(run.execute())
            finally:
                store.close()
    return outcomes


def quiet_libraries() -> None:
    """Silence the bars and notices of the libraries beneath; ours say what is going on."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)


def _refuse_existing(output: Path, polarities: Sequence[Polarity], resume: bool) -> None:
    if resume:
        return
    for polarity in polarities:
        for folder in (output / polarity, _work_folder(output, polarity)):
            if folder.exists():
                state = "an unfinished" if folder.name.startswith(".") else "a finished"
                raise PvMergeError(
                    f"{output}: already holds {state} {polarity} run; add --resume to finish it, "
                    "or name another output_dir"
                )


def _work_folder(output: Path, polarity: Polarity) -> Path:
    return output / f".{polarity}.unfinished"


def _base(name: str) -> Checkpoint | None:
    """Return the base as a local checkpoint, or None where it is a name on the Hub."""
    if Path(name).exists() or name.startswith((".", "/", "~")):
        checkpoint = Checkpoint(name)
        _ = checkpoint.config, checkpoint.files
        return checkpoint
    return None


class _Run:
    """The training of one policy."""

    def __init__(
        self,
        settings: DPOSettings,
        polarity: Polarity,
        data: Pairs,
        held_out: Pairs | None,
        base_hash: str | None,
        store: ReferenceStore,
        bar: Progress,
    ) -> None:
        self.settings, self.polarity = settings, polarity
        self.data, self.held_out = data, held_out
        self.base_hash, self.store, self.bar = base_hash, store, bar
        self.output = Path(settings.output_dir)
        self.work = _work_folder(self.output, polarity)
        self.arguments = dpo_arguments(settings, self.work)

    def execute(self) -> Outcome:
        checkpoint = self._last_checkpoint()
        model, tokenizer = self._load()
        watch = Stopwatch(self._seconds_before(checkpoint))
        chat = tokenizer.chat_template is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            trainer = SharedReferenceTrainer(
                model=model,
                args=self.arguments,
                train_dataset=self._rows(self.data, chat),
                eval_dataset=self._rows(self.held_out, chat) if self.held_out else None,
                processing_class=tokenizer,
                peft_config=self._lora(),
                callbacks=[watch, ProgressCallback(self.bar, self._label())],
                store=self.store,
                bar=self.bar,
            )
            _drop_printer(trainer)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            final = trainer.evaluate() if self.held_out else {}
        metrics = self._metrics(trainer, watch.seconds, final)
        self._save(trainer, tokenizer, metrics)
        return Outcome(self.polarity, self.output / self.polarity, metrics)

    def _label(self) -> str:
        return f"{self.settings.preference} {self.polarity}"

    def _rows(self, data: Pairs, chat: bool) -> Dataset:
        pairs = data.pairs
        if self.polarity == "negative":
            pairs = tuple(pair.swapped() for pair in pairs)
        return to_rows(pairs, chat)

    def _load(self) -> tuple[Any, Any]:
        name = self.settings.base_model
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise PvMergeError(f"{name}: cannot be loaded ({str(error).splitlines()[0]})") from None
        return model, tokenizer

    def _lora(self) -> Any:
        if self.settings.lora is None:
            return None
        from peft import LoraConfig

        try:
            return LoraConfig(task_type="CAUSAL_LM", **self.settings.lora)
        except (ValueError, TypeError) as error:
            raise PvMergeError(f"lora: {' '.join(str(error).split())}") from None

    def _identity(self) -> dict[str, Any]:
        """What a run to be resumed must share with this one."""
        held_out = self.held_out.fingerprint() if self.held_out else None
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"output_dir"}),
            "base": self.base_hash,
            "data": [self.data.fingerprint(), held_out],
        }

    def _last_checkpoint(self) -> Path | None:
        identity = json.loads(json.dumps(self._identity()))
        place = self.work / "identity.json"
        if place.exists() and read_json(place) != identity:
            raise PvMergeError(
                f"{self.work}: was begun with another config, base or data; restore those to "
                "resume it, or delete it to start anew"
            )
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(place, identity)
        found = [path for path in self.work.glob("checkpoint-*") if _whole(path)]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    @staticmethod
    def _seconds_before(checkpoint: Path | None) -> float:
        if checkpoint is None:
            return 0.0
        state = read_json(checkpoint / "trainer_state.json")
        return float(state.get("stateful_callbacks", {}).get("seconds", 0.0))

    def _metrics(self, trainer: Any, seconds: float, final: dict[str, Any]) -> dict[str, float]:
        steps = [log for log in trainer.state.log_history if "loss" in log]
        last = steps[-max(1, len(steps) // 4) :]
        tokens = float(steps[-1].get("num_tokens", 0)) if steps else 0.0
        metrics = {"steps": float(trainer.state.global_step)}
        names = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
        for key, name in names.items():
            metrics[name] = sum(float(log[key]) for log in last) / max(1, len(last))
            if f"eval_{key}" in final:
                metrics[f"heldout_{name}"] = float(final[f"eval_{key}"])
        metrics |= {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / max(seconds, 1e-9)}
        return {key: round(value, 6) for key, value in metrics.items()}

    def _save(self, trainer: Any, tokenizer: Any, metrics: dict[str, float]) -> None:
        settings = self.settings
        with new_folder(self.output / self.polarity) as folder:
            if settings.lora is not None:
                _cast_adapter(trainer.model, settings.adapter_dtype)
            trainer.model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's, all placeholders
            if settings.lora is None:
                tokenizer.save_pretrained(folder)
            write_json(folder / "pv_training_log.json", trainer.state.log_history)
            write_manifest(
                folder,
                {
                    "preference": settings.preference,
                    "polarity": self.polarity,
                    "protected": is_protected(settings.preference, settings.protected),
                    "base_model": {"path": settings.base_model, "weights_sha256": self.base_hash},
                    "dataset": {
                        **settings.dataset.model_dump(exclude_none=True),
                        "pairs": len(self.data.pairs),
                        "fingerprint": self.data.fingerprint(),
                        "dropped": {
                            "chosen_equals_rejected": self.data.equal,
                            "no_clear_label": self.data.undecided,
                            "over_max_chars": self.data.long,
                        },
                        "labels_swapped": self.polarity == "negative",
                    },
                    "lora": settings.lora,
                    "adapter_dtype": settings.adapter_dtype if settings.lora is not None else None,
                    "seed": self.arguments.seed,
                    "dpo": settings.dpo,
                    "hyperparameters": hyperparameters(self.arguments.to_dict()),
                    "metrics": metrics,
                },
            )
        shutil.rmtree(self.work, ignore_errors=True)


def _cast_adapter(model: Any, name: str) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, name))


def _drop_printer(trainer: Any) -> None:
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _whole(checkpoint: Path) -> bool:
    return (checkpoint / "trainer_state.json").exists() and (checkpoint / "optimizer.pt").exists()
