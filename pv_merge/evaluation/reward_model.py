"""Reward and cost models: any sequence-classification model with one output, or Safe-RLHF's.

Safe-RLHF's score models (beaver-7b, with which the paper measures) have a ``score_head`` on the
last token's hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pv_merge.artifacts.foreign import loading
from pv_merge.artifacts.reference import loadable
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.reward_adapter import is_reward_adapter, load_reward_adapter

BATCH = 8
BEAVER = "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{answer}"
"""The form in which Safe-RLHF's score models read a conversation (their model cards)."""


class RewardModel:
    """A loaded score model. Raises ``PvMergeError`` if it has no head with one output."""

    def __init__(self, name: str) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.name, self.beaver = name, False
        if is_reward_adapter(name):
            self._model, self.tokenizer = load_reward_adapter(name)
            self._ready()
            return
        with loading(f"{name}:"):
            self._place = loadable(name)
            config = AutoConfig.from_pretrained(self._place, trust_remote_code=False)
            self.tokenizer = AutoTokenizer.from_pretrained(self._place, trust_remote_code=False)
        architectures = [str(kind) for kind in config.architectures or []]
        self.beaver = any("Score" in kind for kind in architectures)
        if self.beaver:
            self._load_beaver()
        else:
            self._load_classifier(config, architectures)
        self._ready()

    def scores(self, conversations: Sequence[tuple[str, str]]) -> list[float]:
        """Return the model's output for each (prompt, answer), in its own unit."""
        import torch

        values: list[float] = []
        for start in range(0, len(conversations), BATCH):
            batch = self._encode(conversations[start : start + BATCH])
            batch = {key: value.to(self._model.device) for key, value in batch.items()}
            with torch.inference_mode():
                if self.beaver:
                    hidden = self._model(**batch, use_cache=False).last_hidden_state
                    last = batch["attention_mask"].sum(dim=1) - 1
                    end = hidden[torch.arange(len(hidden)), last].float().cpu()
                    output = end @ self._weight.T + self._bias
                else:
                    output = self._model(**batch).logits
            values += output[:, 0].float().tolist()
        return values

    def _encode(self, conversations: Sequence[tuple[str, str]]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "padding": True,
            "padding_side": "right",
            "truncation": True,
            "max_length": min(self.tokenizer.model_max_length, 4096),
            "return_tensors": "pt",
        }
        if self.beaver:
            texts = [
                BEAVER.format(prompt=prompt, answer=answer) for prompt, answer in conversations
            ]
            encoded = self.tokenizer(texts, **options)
        elif self.tokenizer.chat_template is not None:
            turns = [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
                for prompt, answer in conversations
            ]
            texts = [
                str(self.tokenizer.apply_chat_template(turn, tokenize=False)) for turn in turns
            ]
            encoded = self.tokenizer(texts, add_special_tokens=False, **options)
        else:
            prompts, answers = zip(*conversations, strict=True)
            encoded = self.tokenizer(list(prompts), list(answers), **options)
        return dict(encoded)

    def _ready(self) -> None:
        import torch

        self._model.eval()
        if torch.cuda.is_available():
            self._model.to("cuda")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if not self.beaver and self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self.tokenizer.pad_token_id

    def _load_classifier(self, config: Any, architectures: Sequence[str]) -> None:
        from transformers import AutoModelForSequenceClassification

        with loading(f"{self.name}:"):
            self._model, report = AutoModelForSequenceClassification.from_pretrained(
                self._place,
                output_loading_info=True,
                dtype="auto",
                use_safetensors=True,
                trust_remote_code=False,
            )
        if report["missing_keys"]:
            kind = architectures[0] if architectures else "model"
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise PvMergeError(
                f"{self.name}: is a {kind} without a score head ({missing} is not in it); a reward "
                "model is a sequence-classification model with one output"
            )
        if config.num_labels != 1:
            raise PvMergeError(
                f"{self.name}: has {config.num_labels} outputs, and a reward model has one; is it a classifier?"
            )

    def _load_beaver(self) -> None:
        from transformers import AutoModel

        from pv_merge.artifacts.checkpoint import Checkpoint

        checkpoint = Checkpoint(self.name)
        with loading(f"{self.name}:"):
            self._model = AutoModel.from_pretrained(
                checkpoint.folder, dtype="auto", use_safetensors=True, trust_remote_code=False
            )
        if "score_head.weight" not in checkpoint:
            raise PvMergeError(
                f"{self.name}: holds no score_head.weight, though its config names a score model"
            )
        self._weight = checkpoint.tensor("score_head.weight").float()
        if self._weight.shape[0] != 1:
            raise PvMergeError(
                f"{self.name}: has {self._weight.shape[0]} outputs, and a reward model has one"
            )
        has_bias = "score_head.bias" in checkpoint
        self._bias = checkpoint.tensor("score_head.bias").float() if has_bias else 0.0
        if checkpoint.config.get("do_normalize"):
            raise PvMergeError(
                f"{self.name}: normalizes its scores (do_normalize), which is not supported"
            )
