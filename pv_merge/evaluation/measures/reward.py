"""Scores of answers by a reward or a cost model.

Any sequence-classification model with one output will do, and so will the score models of Safe-RLHF
(beaver-7b: a ``score_head`` on the last token's hidden state), which the paper measures with. A cost
model scores harm, so its figure is harmless = −cost, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pv_merge.data.prompts import Prompt
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import Advance, Parts
from pv_merge.evaluation.measures.answers import generate_in_parts
from pv_merge.evaluation.reward_adapter import (
    is_reward_adapter,
    load_reward_adapter,
    refuse_known,
)
from pv_merge.evaluation.statistics import Estimate, bootstrap
from pv_merge.live.subject import Subject

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
            self._can_pad()
            self._model.eval()
            return
        try:
            config = AutoConfig.from_pretrained(name)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise PvMergeError(f"{name}: cannot be loaded ({str(error).splitlines()[0]})") from None
        architectures = [str(kind) for kind in config.architectures or []]
        self.beaver = any("Score" in kind for kind in architectures)
        if self.beaver:
            self._load_beaver()
        else:
            self._load_classifier(config, architectures)
        self._can_pad()
        self._model.eval()

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
                    end = hidden[torch.arange(len(hidden)), last].float()
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

    def _can_pad(self) -> None:
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if not self.beaver and self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self.tokenizer.pad_token_id

    def _load_classifier(self, config: Any, architectures: Sequence[str]) -> None:
        from transformers import AutoModelForSequenceClassification

        try:
            self._model, report = AutoModelForSequenceClassification.from_pretrained(
                self.name, output_loading_info=True, dtype="auto"
            )
        except (OSError, ValueError) as error:
            raise PvMergeError(
                f"{self.name}: cannot be loaded ({str(error).splitlines()[0]})"
            ) from None
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

        folder = self.name
        if not Path(folder).is_dir():
            from huggingface_hub import snapshot_download

            folder = snapshot_download(self.name)
        self._model = AutoModel.from_pretrained(folder, dtype="auto")
        checkpoint = Checkpoint(folder)
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


class RewardMeasure:
    """Mean score of greedy answers; of a cost model, the negative."""

    needs_base = False

    def __init__(
        self,
        name: str,
        model: str,
        prompts: Sequence[Prompt],
        data: str,
        max_new_tokens: int,
        cost: bool = False,
        known: int = 0,
    ) -> None:
        refuse_known(model, [prompt.text for prompt in prompts], known)
        self.name, self.model, self.cost = name, model, cost
        self.prompts, self.max_new_tokens = [prompt.text for prompt in prompts], max_new_tokens
        self._data = data
        self._scorer: RewardModel | None = None

    @property
    def size(self) -> int:
        """Number of answers."""
        return len(self.prompts)

    def identity(self) -> dict[str, Any]:
        """What the measured values depend on besides the weights."""
        from pv_merge.artifacts.provenance import model_hash

        return {
            "kind": "cost" if self.cost else "reward",
            "model": model_hash(self.model),
            "data": self._data,
            "prompts": len(self.prompts),
            "max_new_tokens": self.max_new_tokens,
        }

    def measure(self, subject: Subject, parts: Parts, advance: Advance) -> dict[str, Any]:
        """Return the answers and their scores."""
        if self._scorer is None:
            self._scorer = RewardModel(self.model)
        answers = generate_in_parts(subject, self.prompts, self.max_new_tokens, parts, advance)
        scores = self._scorer.scores(list(zip(self.prompts, answers, strict=True)))
        return {"answers": answers, "scores": [round(score, 6) for score in scores]}

    def items(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, list[float]]:
        """Return each answer's score; of a cost model, the negative."""
        sign = -1.0 if self.cost else 1.0
        return {self.name: [sign * score for score in record["scores"]]}

    def estimates(self, record: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Estimate]:
        """Return the mean with its interval."""
        return {name: bootstrap(values) for name, values in self.items(record, base).items()}

    def labels(self) -> dict[str, str]:
        """Return what the figure is."""
        what = "mean of −cost" if self.cost else "mean reward"
        return {self.name: f"{what} of greedy answers, by {Path(self.model).name}"}

    def better(self) -> dict[str, int]:
        """More is better, since a cost's sign is turned."""
        return {self.name: 1}
