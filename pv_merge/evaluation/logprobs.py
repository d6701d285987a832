"""Log-probabilities of completions, each shared prefix encoded once.

Sequences are laid out as trees of tokens (``pv_merge.data.token_tree``): the system prompt is encoded
once for a whole pack, a prompt once for both answers, and nothing is padding. The result is that of
the plain way (one sequence a row) up to the order of floating-point sums; ``Scorer`` checks that on
the longest sequence that it is given, and uses the plain way for a model where it does not hold
(state-space layers, sliding windows).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pv_merge.data.encoding import Encoded
from pv_merge.data.token_tree import UNSCORED, make_tree, packs
from pv_merge.data.tree_attention import attending_to_trees, tree_inputs, why_not

PACK_TOKENS = 512
"""Tokens of one pack; of each that is scored there is a row of logits."""
PLAIN_TOKENS = 1024
"""Tokens of one padded batch of the plain way."""
TOLERANCE = 1e-3
"""Nats per token by which the tree may differ from the plain way (in float32)."""


@torch.inference_mode()
def tree_logps(model: Any, sequences: Sequence[Encoded]) -> list[float]:
    """Return Σ log p over the completion of each sequence, in nats; see ``attending_to_trees``."""
    tree = make_tree(sequences)
    rows = [place for place, label in enumerate(tree.labels) if label != UNSCORED]
    if not rows:
        return [0.0] * len(sequences)
    kept = torch.tensor(rows, device=model.device)
    logits = logits_at(model, kept, **tree_inputs(tree, model.device))[0].float()
    labels = torch.tensor([tree.labels[place] for place in rows], device=model.device)
    values = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(-1)
    logp = dict(zip(rows, values.double().tolist(), strict=True))
    return [float(sum(logp[place] for place in places)) for places in tree.scored]


@torch.inference_mode()
def plain_logps(model: Any, sequences: Sequence[Encoded]) -> list[float]:
    """Return Σ log p over the completion of each sequence, one a row, padded on the right."""
    width = max(len(sequence.tokens) for sequence in sequences)
    first = max(0, min(max(sequence.start, 1) for sequence in sequences) - 1)
    tokens = torch.zeros((len(sequences), width), dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for place, sequence in enumerate(sequences):
        tokens[place, : len(sequence.tokens)] = torch.tensor(sequence.tokens)
        mask[place, : len(sequence.tokens)] = 1
    kept = torch.arange(first, width, device=model.device)
    logits = logits_at(
        model, kept, input_ids=tokens.to(model.device), attention_mask=mask.to(model.device)
    )
    totals = []
    for place, sequence in enumerate(sequences):
        start, stop = max(sequence.start, 1), len(sequence.tokens)
        part = logits[place, start - 1 - first : stop - 1 - first].float()
        target = tokens[place, start:stop].to(model.device)
        values = part.gather(1, target[:, None])[:, 0] - part.logsumexp(-1)
        totals.append(float(values.double().sum()))
    return totals


def logits_at(model: Any, positions: Tensor, **inputs: Tensor) -> Tensor:
    """Return the logits at ``positions`` only. Shape: (batch, positions, vocabulary)."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=positions).logits
        return logits
    whole: Tensor = model(**inputs, use_cache=False).logits
    return whole[:, positions]


class Scorer:
    """Log-probabilities of one fixed list of sequences, under any weights of one architecture."""

    def __init__(self, sequences: Sequence[Encoded]) -> None:
        self.sequences = list(sequences)
        self._packs = packs(self.sequences, PACK_TOKENS)
        self._plain: bool | None = None

    def score(self, model: Any, advance: Callable[[int], None] = lambda count: None) -> list[float]:
        """Return Σ log p over each completion, in nats. ``advance`` hears of sequences done."""
        if self._plain is None:
            self._plain = not self._tree_holds(model)
        if self._plain:
            return self._in_batches(self._rows(), lambda part: plain_logps(model, part), advance)
        with attending_to_trees(model):
            return self._in_batches(self._packs, lambda part: tree_logps(model, part), advance)

    def _in_batches(
        self,
        batches: list[list[int]],
        logps: Callable[[list[Encoded]], list[float]],
        advance: Callable[[int], None],
    ) -> list[float]:
        totals = [0.0] * len(self.sequences)
        for batch in batches:
            values = logps([self.sequences[index] for index in batch])
            for index, value in zip(batch, values, strict=True):
                totals[index] = value
            advance(len(batch))
        return totals

    def _rows(self) -> list[list[int]]:
        order = sorted(range(len(self.sequences)), key=lambda i: -len(self.sequences[i].tokens))
        batches: list[list[int]] = []
        for index in order:
            width = len(self.sequences[batches[-1][0]].tokens) if batches else 0
            if not batches or (len(batches[-1]) + 1) * width > PLAIN_TOKENS:
                batches.append([])
            batches[-1].append(index)
        return batches

    def _tree_holds(self, model: Any) -> bool:
        longest = max(range(len(self.sequences)), key=lambda i: len(self.sequences[i].tokens))
        if why_not(model, len(self.sequences[longest].tokens)) is not None:
            return False
        beside = next(pack for pack in self._packs if longest in pack)
        # The longest, and one more that shares its prefix or stands beside it.
        trial = [self.sequences[i] for i in [longest, *(i for i in beside if i != longest)][:2]]
        try:
            with attending_to_trees(model):
                tree = tree_logps(model, trial)
        except (TypeError, ValueError, RuntimeError):
            return False
        slack = TOLERANCE if model.dtype == torch.float32 else 50 * TOLERANCE
        return all(
            abs(found - value) <= slack * max(1, sequence.length)
            for found, value, sequence in zip(tree, plain_logps(model, trial), trial, strict=True)
        )
