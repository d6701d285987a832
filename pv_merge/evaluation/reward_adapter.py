"""A reward model that is an adapter with a head, as ``pv-train reward`` saves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pv_merge.artifacts.base_hash import cheap_hash
from pv_merge.artifacts.checkpoint import Checkpoint
from pv_merge.artifacts.foreign import loading
from pv_merge.artifacts.manifest import RUN_MANIFEST, read_manifest
from pv_merge.artifacts.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pv_merge.artifacts.reference import loadable
from pv_merge.artifacts.reward import known_prompts
from pv_merge.artifacts.weights_file import WeightsFile
from pv_merge.data.documents import read_object
from pv_merge.errors import PvMergeError, Topic


def is_reward_adapter(folder: str) -> bool:
    """Return whether a folder holds an adapter; ``load_reward_adapter`` says whether it scores."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def load_reward_adapter(folder: str) -> tuple[Any, Any]:
    """Return the model and its base's tokenizer.

    Raises ``PvMergeError`` for an adapter that does not score, and for a base with other weights
    than those that it was trained on.
    """
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    said = read_object(Path(folder) / ADAPTER_CONFIG)
    task, base = said.get("task_type"), str(said.get("base_model_name_or_path"))
    if task != "SEQ_CLS":
        raise PvMergeError(
            f"{folder}: is an adapter for {task}, and a reward model's is for SEQ_CLS; was it made "
            "by pv-train reward?"
        )
    if not any("score" in name for name in _stored(folder)):
        raise PvMergeError(f"{folder}: is an adapter without a score head")
    _check_base(folder, base)
    with loading(f"{folder}:"):
        tokenizer = AutoTokenizer.from_pretrained(loadable(base), trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            loadable(base),
            num_labels=1,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=False,
        )
        scorer = PeftModel.from_pretrained(model, folder)
    return scorer, tokenizer


def refuse_known(model: str, prompts: Sequence[str], allowed: int) -> None:
    """Raise ``PvMergeError`` if a reward model was trained on more than ``allowed`` of ``prompts``."""
    known = known_prompts(model, prompts)
    if known > allowed:
        raise PvMergeError(
            f"{model}: was trained on {known} of the {len(prompts)} prompts whose answers it is to "
            f"score; take others, or allow it with --known-prompts {known}"
        )


def _check_base(folder: str, base: str) -> None:
    manifest = read_manifest(folder, RUN_MANIFEST)
    expected = manifest.made_from.weights_sha256 if manifest else None
    if expected and Path(base).is_dir() and cheap_hash(Checkpoint(base)) not in (None, expected):
        raise PvMergeError(
            f"{folder}: its base {base} has other weights than those that it was trained on; is "
            "another model there now?",
            Topic.BASE,
        )


def _stored(folder: str) -> list[str]:
    return list(WeightsFile(Path(folder) / ADAPTER_WEIGHTS).infos)
