"""Log-probabilities of completions, each shared prefix encoded once.

Sequences are laid out as a tree of tokens, packed into one row: a token attends to itself and its
ancestors, and its position is its depth. So the system prompt is encoded once for a whole pack, a
prompt once for both answers, and nothing is padding. The result is that of the plain way (one
sequence a row) up to the order of floating-point sums; ``Scorer`` checks that on the longest pair
that it is given, and uses the plain way for a model where it does not hold (state-space layers,
sliding windows).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pv_merge.data.encoding import Encoded

PACK_TOKENS = 512
"""Tokens of one pack; larger ones share more, but attention grows with the square."""
PLAIN_TOKENS = 1024
"""Tokens of one padded batch of the plain way."""
TOLERANCE = 1e-3
"""Nats per token by which the tree may differ from the plain way (in float32)."""


@dataclass
class Pack:
    """Some sequences as one tree of tokens; a parent always precedes its children."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[tuple[int, list[int]]] = field(default_factory=list)
    """(sequence, the nodes of its completion)"""
    children: list[dict[int, int]] = field(default_factory=lambda: [{}])
    """Children of each node by token; entry 0 is the root's."""

    def new_tokens(self, tokens: Sequence[int]) -> int:
        """Return how many nodes ``add`` would make."""
        node = -1
        for depth, token in enumerate(tokens):
            found = self.children[node + 1].get(token)
            if found is None:
                return len(tokens) - depth
            node = found
        return 0

    def add(self, index: int, sequence: Encoded) -> None:
        """Add a sequence under the number ``index``."""
        node, path = -1, []
        for depth, token in enumerate(sequence.tokens):
            found = self.children[node + 1].get(token)
            if found is None:
                found = len(self.tokens)
                self.children[node + 1][token] = found
                self.children.append({})
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(depth)
            node = found
            if depth >= max(sequence.start, 1):
                path.append(node)
        self.paths.append((index, path))

    def mask(self) -> np.ndarray:
        """Return which token sees which. Shape: (tokens, tokens), bool."""
        seen = np.zeros((len(self.tokens), len(self.tokens)), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, node] = True
        return seen


def make_packs(sequences: Sequence[Encoded], budget: int = PACK_TOKENS) -> list[Pack]:
    """Return packs of about ``budget`` tokens; sequences with a common prefix are neighbours."""
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].tokens, i))
    packs: list[Pack] = []
    for index in order:
        sequence = sequences[index]
        if not packs or len(packs[-1].tokens) + packs[-1].new_tokens(sequence.tokens) > budget:
            packs.append(Pack())
        packs[-1].add(index, sequence)
    return packs


@torch.inference_mode()
def pack_logps(model: Any, pack: Pack) -> dict[int, float]:
    """Return Σ log p over the completion of each sequence of a pack, in nats."""
    device, dtype = model.device, model.dtype
    needed = sorted({node for _, path in pack.paths for node in path})
    if not needed:
        return {index: 0.0 for index, _ in pack.paths}
    parents = sorted({pack.parents[node] for node in needed})
    row = {parent: place for place, parent in enumerate(parents)}
    blocked = torch.from_numpy(~pack.mask()).to(device)
    mask = torch.zeros(blocked.shape, dtype=dtype, device=device)
    mask.masked_fill_(blocked, torch.finfo(dtype).min)
    logits = logits_at(
        model,
        torch.tensor(parents, device=device),
        input_ids=torch.tensor([pack.tokens], device=device),
        attention_mask=mask[None, None],
        position_ids=torch.tensor([pack.depths], device=device),
    )[0].float()
    rows = torch.tensor([row[pack.parents[node]] for node in needed], device=device)
    tokens = torch.tensor([pack.tokens[node] for node in needed], device=device)
    values = (logits[rows, tokens] - logits.logsumexp(-1)[rows]).double().tolist()
    logp = dict(zip(needed, values, strict=True))
    return {index: float(sum(logp[node] for node in path)) for index, path in pack.paths}


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
        self._packs = make_packs(self.sequences)
        self._plain: bool | None = None

    def score(self, model: Any, advance: Callable[[int], None] = lambda count: None) -> list[float]:
        """Return Σ log p over each completion, in nats. ``advance`` hears of sequences done."""
        if self._plain is None:
            self._plain = not self._tree_holds(model)
        totals = [0.0] * len(self.sequences)
        if self._plain:
            for batch in self._batches():
                for index, value in zip(
                    batch, plain_logps(model, [self.sequences[i] for i in batch]), strict=True
                ):
                    totals[index] = value
                advance(len(batch))
            return totals
        for pack in self._packs:
            for index, value in pack_logps(model, pack).items():
                totals[index] = value
            advance(len(pack.paths))
        return totals

    def _batches(self) -> list[list[int]]:
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
        pack = max(self._packs, key=lambda p: any(index == longest for index, _ in p.paths))
        # The longest, and one more that shares its prefix or stands beside it.
        indices = [longest, *(index for index, _ in pack.paths if index != longest)][:2]
        trial = Pack()
        for index in indices:
            trial.add(index, self.sequences[index])
        try:
            tree = pack_logps(model, trial)
        except (TypeError, ValueError, RuntimeError):
            return False
        plain = plain_logps(model, [self.sequences[index] for index in indices])
        slack = TOLERANCE if model.dtype == torch.float32 else 50 * TOLERANCE
        return all(
            abs(tree[index] - value) <= slack * max(1, self.sequences[index].length)
            for index, value in zip(indices, plain, strict=True)
        )
