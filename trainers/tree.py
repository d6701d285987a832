"""A padded batch read as a tree of tokens, so that TRL's trainer need not know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pv_merge.data.encoding import Encoded
from pv_merge.data.token_tree import UNSCORED, make_tree
from pv_merge.data.tree_attention import tree_inputs

TOLERANCE = {torch.float32: 5e-4, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Nats of one token by which a tree may differ from padded rows, by the dtype of the arithmetic."""


class AsTree:
    """A model with TRL's fused head, called with padded rows, that is itself called with a tree.

    The result is laid out as if the rows had been the input: TRL's losses and figures read it so.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self, *, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **options: Any
    ) -> Any:
        """Return the fields of TRL's fused output. Shape: (rows, width − 1), 0 where unscored."""
        tree = make_tree(_sequences(input_ids, attention_mask, labels))
        if not len(tree):
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, labels=labels, **options
            )
        device = input_ids.device
        output = self.model(
            **tree_inputs(tree, device),
            shift_labels=torch.tensor([tree.labels], device=device),
            **options,
        )
        places = torch.tensor([at for part in tree.scored for at in part], device=device)
        scored = labels[:, 1:] != UNSCORED
        for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
            values = getattr(output, name)
            if values is not None:
                rows = values.new_zeros(scored.shape)
                setattr(output, name, rows.masked_scatter(scored, values[0, places]))
        output.label_mask = scored
        return output


def largest_difference(model: Any, inputs: dict[str, Tensor]) -> float:
    """Return the largest difference of a token's log-probability, as a tree and as padded rows."""
    with torch.no_grad():
        rows = model(**inputs, fused_lm_head=True).log_probs
        tree = AsTree(model)(**inputs, fused_lm_head=True).log_probs
    return float((rows.float() - tree.float()).abs().max())


def _sequences(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> list[Encoded]:
    lengths: Sequence[int] = attention_mask.sum(1).tolist()
    answers: Sequence[int] = (labels != UNSCORED).sum(1).tolist()
    return [
        Encoded(tuple(row[:length]), length - answer)
        for row, length, answer in zip(input_ids.tolist(), lengths, answers, strict=True)
    ]
