import math

import numpy as np
import pytest

from pv_merge.evaluation.statistics import (
    Estimate,
    bootstrap,
    paired_difference,
    pareto_front,
    share,
    spearman,
)


def test_two_values_resample_to_either_end():
    # Means of two draws from {0, 1}: 0 (1/4), 1/2 (1/2), 1 (1/4), so 95 % reaches both ends.
    assert bootstrap([0.0, 1.0]) == Estimate(0.5, 0.0, 1.0, 2)


def test_one_value_has_no_width():
    assert bootstrap([3.0]) == Estimate(3.0, 3.0, 3.0, 1)


def test_interval_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(2, 3, 400)
    found = bootstrap(values.tolist())
    reach = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - reach, abs=0.05)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.05)


def test_groups_are_drawn_whole():
    # Fifty answers each to two prompts say no more than two answers.
    grouped = bootstrap([0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50)
    assert (grouped.low, grouped.high) == (0.0, 1.0)
    alone = bootstrap([0.0] * 50 + [1.0] * 50)
    assert alone.low > 0.35
    assert alone.high < 0.65


def test_the_same_seed_gives_the_same_interval():
    values = [1.0, 5.0, 2.0, 8.0, 3.0]
    assert bootstrap(values) == bootstrap(values)


def test_pairing_cancels_what_the_items_share():
    before = [1.0, 100.0, -50.0]
    after = [value + 2 for value in before]
    assert paired_difference(after, before) == Estimate(2.0, 2.0, 2.0, 3)
    with pytest.raises(ValueError, match="differ in number: 3 and 2"):
        paired_difference(after, before[:2])


def test_none_of_ten_is_not_certainly_none():
    found = share([0.0] * 10)
    assert found.value == 0
    assert found.high == pytest.approx(0.2775, abs=1e-3)  # Wilson
    assert share([1.0] * 10).low == pytest.approx(1 - 0.2775, abs=1e-3)
    assert share([0.0, 1.0]) == bootstrap([0.0, 1.0])


def mean_ranks(values):
    """Return each value's rank, ties sharing their mean."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


@pytest.mark.parametrize(
    ("x", "y", "rho"),
    [
        ([1, 2, 3], [2, 4, 9], 1.0),
        ([1, 2, 3], [9, 4, 2], -1.0),
        ([1, 2, 3, 4], [1, 1, 2, 2], 0.8944),
    ],
)
def test_spearman(x, y, rho):
    assert spearman(x, y) == pytest.approx(rho, abs=1e-4)
    assert spearman(x, y) == pytest.approx(np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1])


def test_spearman_of_a_constant_is_undefined():
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]))


def test_pareto_front():
    #        good/bad   best both  dominated  equal to the best
    points = [(3.0, 0.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (0.0, 3.0)]
    assert pareto_front(points) == [0, 1, 3, 4]
