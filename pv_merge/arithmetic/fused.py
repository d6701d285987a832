"""The merge of one tensor by fused kernels, window by window.

Nothing here needs torch: a tensor is an address and a dtype. What comes out does not depend on the
windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from pv_merge.arithmetic.kernel_shape import BLOCK
from pv_merge.arithmetic.native import merge_window
from pv_merge.arithmetic.noise import BITS, first_word, ring
from pv_merge.arithmetic.stored import SIZES
from pv_merge.arithmetic.surveys import needs_survey, survey
from pv_merge.arithmetic.windows import Inputs, Load, Plan, Rules, Strength, Sums, scratch, tables

STEP = BLOCK
"""Elements of a window."""

RULES = {"none": 0, "sum": 1, "count": 2}


def merge_part(
    inputs: Inputs, start: int, count: int, plan: Plan, rules: Rules, outs: Sequence[int]
) -> Sums:
    """Write the merge of ``count`` elements from ``start`` on to the address of each output.

    A plan with a density counts its ties down, so the windows of such a tensor come in order.
    """
    preferences, targets = len(inputs.groups), len(outs)
    shared = np.zeros(1 + preferences * preferences)
    sums = np.zeros((targets, preferences + 2))
    base, parts, bounds = tables(inputs, rules.cast)
    lead = start % BLOCK
    merge_window(
        count, base, parts, bounds, plan.sparse, plan.shares, RULES[rules.sign_consensus],
        plan.etas, rules.result, lead, _noise(rules, start // BLOCK, lead + count),
        np.array(outs, np.int64), scratch.take(preferences), shared, sums,
    )  # fmt: skip
    return Sums(
        float(shared[0]),
        shared[1:].reshape(preferences, preferences),
        sums[:, 1 : 1 + preferences],
        sums[:, 1 + preferences],
        int(sums[:, 0].sum()),
    )


def _noise(rules: Rules, block: int, count: int) -> np.ndarray:
    """Return where the random words of ``count`` positions from a block on lie, block by block.

    0 where none are needed.
    """
    blocks = range(block, block + -(-count // BLOCK))
    if not rules.is_noisy:
        return np.zeros(len(blocks), np.int64)
    words = ring(BITS[rules.round_to])
    firsts = np.array([first_word(rules.seed, rules.name, number) for number in blocks], np.int64)
    return firsts * words.itemsize + int(words.ctypes.data)


def merge_flat(
    count: int,
    load: Load,
    strengths: Sequence[Strength],
    rules: Rules,
    out: int,
    threads: int = 1,
) -> int:
    """Write the merge of a whole tensor to the address ``out``, window by window.

    Returns how many values are not finite.
    """
    if needs_survey(strengths, rules.orthogonal):
        plan = survey(count, load, strengths, rules)
    else:
        plan = Plan.plain([[item.eta for item in strengths]])

    def one(start: int) -> int:
        here = min(STEP, count - start)
        place = out + start * SIZES[rules.stored]
        return merge_part(load(start, here), start, here, plan, rules, [place]).not_finite

    starts = range(0, count, STEP)
    in_order = bool((plan.sparse >= 0).any())
    if threads > 1 and len(starts) > 1 and not in_order:
        return sum(workers(threads).map(one, starts))
    return sum(map(one, starts))


@lru_cache(maxsize=4)
def workers(threads: int) -> ThreadPoolExecutor:
    """Return threads that wait for windows; their arithmetic runs outside the interpreter's lock."""
    return ThreadPoolExecutor(threads, thread_name_prefix="pv-merge")
