"""Sequences as one tree of tokens: a prefix that several share is there once, and nothing is padding.

The tree lies in one row, depth first. A token attends to itself and to its ancestors, and its
position is its depth, so each sequence comes out as if it stood alone, up to the order of
floating-point sums. A sequence's last prompt token and its answer are its own, and the last token,
after which nothing is scored, is left out: so every token has at most one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pv_merge.data.encoding import Encoded, common_prefix

UNSCORED = -100
"""Label of a token after which nothing is scored, as in PyTorch's cross entropy."""


@dataclass(frozen=True)
class TokenTree:
    """Some sequences as one row of tokens."""

    tokens: list[int]
    depths: list[int]
    """Position of each token in every sequence that holds it."""
    until: list[int]
    """Token i is seen by tokens i ≤ j < until[i]: itself and its descendants."""
    labels: list[int]
    """The token that follows and is scored, or ``UNSCORED``."""
    scored: list[range]
    """Of each sequence, the places whose labels are its completion, in order."""

    def __len__(self) -> int:
        return len(self.tokens)


def make_tree(sequences: Sequence[Encoded]) -> TokenTree:
    """Return the tree of ``sequences``; one without a token to score is left out of it."""
    tokens: list[int] = []
    depths: list[int] = []
    until: list[int] = []
    labels: list[int] = []
    scored = [range(0)] * len(sequences)
    before: tuple[int, ...] = ()
    path: list[int] = []  # the places of ``before``
    for index in tree_order(sequences):
        sequence = sequences[index]
        if sequence.length <= 0:
            continue
        shared = _shared(sequence)
        kept = common_prefix(before, shared)
        for place in path[kept:]:
            until[place] = len(tokens)
        path[kept:] = range(len(tokens), len(tokens) + len(shared) - kept)
        own = sequence.tokens[len(shared) :]
        tokens += (*shared[kept:], *own[:-1])
        depths += range(kept, len(sequence.tokens) - 1)
        labels += (*(UNSCORED for _ in shared[kept:]), *own[1:])
        scored[index] = range(len(tokens) - sequence.length, len(tokens))
        until += [len(tokens)] * (len(tokens) - len(until))
        before = shared
    for place in path:
        until[place] = len(tokens)
    return TokenTree(tokens, depths, until, labels, scored)


def tree_order(sequences: Sequence[Encoded]) -> list[int]:
    """Return the order in which sequences that share a prefix are neighbours."""
    return sorted(range(len(sequences)), key=lambda i: (_shared(sequences[i]), i))


def packs(sequences: Sequence[Encoded], budget: int) -> list[list[int]]:
    """Return the sequences in groups whose trees have about ``budget`` tokens, as indices."""
    found: list[list[int]] = []
    size = 0
    before: tuple[int, ...] = ()
    for index in tree_order(sequences):
        shared = _shared(sequences[index])
        new = len(sequences[index].tokens) - 1 - common_prefix(before, shared)
        if not found or size + new > budget:
            found.append([])
            size, new = 0, len(sequences[index].tokens) - 1
        found[-1].append(index)
        size, before = size + new, shared
    return found


def _shared(sequence: Encoded) -> tuple[int, ...]:
    """Return the tokens that may be shared: all before the first one that has a label."""
    return sequence.tokens[: max(sequence.start, 1) - 1]
