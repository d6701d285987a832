"""DPO in both polarities: one base, one reference pass, two policies."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import DPOConfig

from pv_merge.artifacts.base_hash import weights_hash
from pv_merge.artifacts.folders import new_folder
from pv_merge.artifacts.protection import is_protected
from pv_merge.cache import cache_folder
from pv_merge.data.pairs import Pairs, load_pairs
from pv_merge.data.settings import PairsDataset
from pv_merge.errors import PvMergeError
from trainers import ranks
from trainers.arguments import dpo_arguments, place_logs
from trainers.dpo_trainer import SharedReferenceTrainer
from trainers.manifest import made_by_sft, read_manifest, write_manifest
from trainers.model import load_model, load_tokenizer, local_base, lora_config
from trainers.precision import check_launcher
from trainers.progress import no_future_warnings, progress_bar, quiet_libraries
from trainers.reference import ReferenceStore
from trainers.run_folder import RunFolder
from trainers.session import Outcome, Session, finish_folder, manifest_part, save_weights
from trainers.settings import DPOSettings, Polarity
from trainers.tokens import Tokenized, tokenize
from trainers.traits.record import synthetic

if TYPE_CHECKING:
    from rich.progress import Progress


def train(
    settings: DPOSettings, polarities: Sequence[Polarity], resume: bool = False
) -> list[Outcome]:
    """Train the policies and return how each went.

    Finished policies appear by rename as ``output_dir/positive`` and ``output_dir/negative``.
    Raises ``PvMergeError`` before any training if the folder already holds a run and ``resume``
    is not set, or if the base or the data cannot be used.
    """
    output = Path(settings.output_dir)
    folders = {polarity: RunFolder(output / polarity) for polarity in polarities}
    arguments = dpo_arguments(settings, output)  # also joins the other ranks, if there are any
    check_launcher(settings, arguments)
    finished = ranks.on_main(lambda: _finished(folders, resume))
    outcomes = {
        polarity: Outcome(polarity, output / polarity, manifest["metrics"], skipped=True)
        for polarity, manifest in finished.items()
    }
    to_do = [polarity for polarity in polarities if polarity not in finished]
    if to_do:
        quiet_libraries()
        inputs = Inputs(settings, arguments)
        try:
            with progress_bar() as bar:
                for polarity in to_do:
                    outcomes[polarity] = _Run(inputs, polarity, folders[polarity], bar).execute()
        finally:
            inputs.close()
    return [outcomes[polarity] for polarity in polarities]


def _finished(folders: dict[Polarity, RunFolder], resume: bool) -> dict[Polarity, dict[str, Any]]:
    """Return the manifests of the policies that are there already, which only ``resume`` allows."""
    found = {}
    for polarity, folder in folders.items():
        if not resume:
            folder.refuse_existing()
        manifest = read_manifest(folder.final)
        if manifest is not None:
            found[polarity] = manifest
            folder.clear()
    return found


class Inputs:
    """What both policies are trained from: base, tokenized pairs, and the reference store."""

    def __init__(self, settings: DPOSettings, arguments: DPOConfig) -> None:
        self.settings = settings
        base = local_base(settings.base_model)
        self.tokenizer = load_tokenizer(settings.base_model)
        self.data, self.tokens = self._load(settings.dataset, arguments)
        self.held_out: Pairs | None = None
        self.held_out_tokens: Tokenized | None = None
        if settings.eval_dataset:
            self.held_out, self.held_out_tokens = self._load(settings.eval_dataset, arguments)
        self.base_hash = ranks.on_main(lambda: weights_hash(base) if base else None)
        self.sft = made_by_sft(base.folder) if base else None
        self.store = self._open_store(arguments) if ranks.rank() == 0 else None

    def _load(self, dataset: PairsDataset, arguments: DPOConfig) -> tuple[Pairs, Tokenized]:
        pairs = load_pairs(dataset)
        return pairs, tokenize(pairs.pairs, self.tokenizer, arguments, dataset.path)

    def _open_store(self, arguments: DPOConfig) -> ReferenceStore:
        settings = self.settings
        scope = f"{self.base_hash or settings.base_model} bf16={arguments.bf16}"
        if arguments.fp16:
            scope += " fp16"
        if settings.base_dtype != "float32" or settings.quantization:
            scope += f" {settings.base_dtype} {settings.quantization}"
        name = hashlib.sha256(scope.encode()).hexdigest()[:16]
        return ReferenceStore(cache_folder() / "reference" / f"{name}.sqlite", scope)

    def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            self.store.close()

    def identity(self) -> dict[str, Any]:
        """What a run to be resumed must share with this one."""
        held_out = self.held_out.fingerprint() if self.held_out else None
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"output_dir"}),
            "base": self.base_hash,
            "data": [self.data.fingerprint(), held_out],
            "processes": ranks.world_size(),
        }

    def describe_dataset(self) -> dict[str, Any]:
        """Return what the manifest says of the training pairs."""
        return {
            **self.settings.dataset.model_dump(exclude_none=True),
            "pairs": len(self.data.pairs),
            "fingerprint": self.data.fingerprint(),
            "dropped": {**self.data.dropped(), "prompt_fills_max_length": self.tokens.filled},
            "truncated": self.tokens.truncated,
            **synthetic(self.settings.dataset.path),
        }

    def notes(self) -> tuple[str, ...]:
        """Return what the closing report says of the rows."""
        dropped = self.describe_dataset()["dropped"]
        left_out = ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in dropped.items() if n)
        kept = len(self.tokens.rows)
        lines = [f"{kept} pairs; left out: {left_out or 'none'}"]
        if self.tokens.truncated:
            lines.append(f"{self.tokens.truncated / kept:.1%} of the pairs are cut at max_length")
        return tuple(lines)


class _Run:
    """The training of one policy."""

    def __init__(
        self, inputs: Inputs, polarity: Polarity, folder: RunFolder, bar: Progress
    ) -> None:
        self.inputs, self.polarity, self.folder, self.bar = inputs, polarity, folder, bar
        self.settings = inputs.settings

    def execute(self) -> Outcome:
        checkpoint = ranks.on_main(lambda: self.folder.begin(self.inputs.identity()))
        label = f"{self.settings.preference} {self.polarity}"
        session = Session(self.settings, checkpoint, self.bar, label)
        try:
            trainer = self._trainer(session, label)
            metrics = session.fit(trainer)
        except BaseException:
            if ranks.rank() == 0:
                self.folder.discard_if_untrained()
            raise
        self._save(trainer, session, metrics)
        notes = (*self.inputs.notes(), *session.notes())
        return Outcome(self.polarity, self.folder.final, metrics, notes)

    def _trainer(self, session: Session, label: str) -> SharedReferenceTrainer:
        inputs, settings = self.inputs, self.settings
        arguments = dpo_arguments(settings, self.folder.work)
        if arguments.run_name is None:
            arguments.run_name = label.replace(" ", "-")
        place_logs(arguments, self.folder.final)
        fsdp_lora = settings.lora is not None and os.environ.get("ACCELERATE_USE_FSDP") == "true"
        held_out = inputs.held_out_tokens
        try:
            with no_future_warnings():
                return SharedReferenceTrainer(
                    model=load_model(settings),
                    # FSDP shards the policy only when it trains, so the pass needs its own model.
                    ref_model=load_model(settings) if fsdp_lora else None,
                    args=arguments,
                    train_dataset=self._side(inputs.tokens),
                    eval_dataset=self._side(held_out) if held_out else None,
                    processing_class=inputs.tokenizer,
                    peft_config=lora_config(settings),
                    callbacks=session.callbacks,
                    store=inputs.store,
                    bar=self.bar,
                    tree=settings.tree,
                )
        except (ValueError, ImportError, RuntimeError, NotImplementedError) as error:
            raise PvMergeError(f"dpo: {' '.join(str(error).split())}") from error

    def _side(self, tokens: Tokenized) -> Any:
        return tokens.swapped() if self.polarity == "negative" else tokens.rows

    def _save(self, trainer: Any, session: Session, metrics: dict[str, float]) -> None:
        settings, inputs = self.settings, self.inputs
        main = ranks.rank() == 0
        with tempfile.TemporaryDirectory(dir=self.folder.work) if main else nullcontext() as place:
            staged = Path(place) if place else None
            save_weights(trainer, staged)
            if staged is not None:
                with new_folder(self.folder.final) as folder:
                    lora = settings.lora is not None
                    dtype = settings.adapter_dtype if lora else settings.save_dtype
                    finish_folder(folder, staged, settings, dtype, trainer.state.log_history)
                    if not lora:
                        inputs.tokenizer.save_pretrained(folder)
                    write_manifest(folder, self._manifest(trainer, session, metrics))
        if main:
            self.folder.clear()
        ranks.wait()

    def _manifest(
        self, trainer: Any, session: Session, metrics: dict[str, float]
    ) -> dict[str, Any]:
        settings, inputs = self.settings, self.inputs
        base: dict[str, Any] = {"path": settings.base_model, "weights_sha256": inputs.base_hash}
        if inputs.sft is not None:
            base["sft"] = inputs.sft
        return {
            "preference": settings.preference,
            "polarity": self.polarity,
            "protected": is_protected(settings.preference, settings.protected),
            "base_model": base,
            "dataset": {
                **inputs.describe_dataset(),
                "labels_swapped": self.polarity == "negative",
            },
            "lora": settings.lora,
            "adapter_dtype": settings.adapter_dtype if settings.lora is not None else None,
            "reference_sequences_computed": trainer.reference_computed,
            "tree": trainer.tree,
            "dpo": settings.dpo,
            **manifest_part(session, trainer, metrics),
        }
