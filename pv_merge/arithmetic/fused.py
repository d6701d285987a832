"""The merge of one tensor by fused kernels, window by window.

Nothing here needs torch: a tensor is an address and a dtype. What comes out does not depend on the
windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from pv_merge.arithmetic.kernels import merge_window
from pv_merge.arithmetic.noise import BITS, BLOCK, first_word, ring
from pv_merge.arithmetic.stored import SIZES
from pv_merge.arithmetic.surveys import needs_survey, survey
from pv_merge.arithmetic.windows import Inputs, Load, Plan, Rules, Strength, Sums, scratch, tables

STEP = BLOCK
"""Elements of a window: no more than share one start in the ring of random words."""

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
    done = 0
    while done < count:  # a block of noise at a time
        here = min(count - done, BLOCK - (start + done) % BLOCK)
        base, parts, bounds = tables(inputs.window(done), rules.cast)
        places = np.array(outs, np.int64) + done * SIZES[rules.stored]
        merge_window(
            here, base, parts, bounds, plan.sparse, plan.shares, RULES[rules.sign_consensus],
            plan.etas, rules.result, _noise(rules, start + done), places,
            scratch.take(preferences), shared, sums,
        )  # fmt: skip
        done += here
    return Sums(
        float(shared[0]),
        shared[1:].reshape(preferences, preferences),
        sums[:, 1 : 1 + preferences],
        sums[:, 1 + preferences],
        int(sums[:, 0].sum()),
    )


def _noise(rules: Rules, position: int) -> int:
    """Return the address of a position's random word, or 0 where none is needed."""
    if not rules.is_noisy:
        return 0
    block, offset = divmod(position, BLOCK)
    words = ring(BITS[rules.round_to])
    first = first_word(rules.seed, rules.name, block) + offset
    return int(words.ctypes.data) + first * words.itemsize


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
