import pytest

from pv_merge.errors import PvMergeError
from pv_merge.recipe.grid import (
    base_point,
    checked_axes,
    count,
    parse_axes,
    points,
    shown_points,
    shown_values,
)

NAMES = ["helpful", "polite"]


def test_axes_are_sorted_and_multiplied_out():
    axes = checked_axes(parse_axes(["polite=1,-1,0", "helpful=0.5,0"]), NAMES)
    assert axes == {"polite": [-1.0, 0.0, 1.0], "helpful": [0.0, 0.5]}
    assert count(axes) == 6
    found = points(axes, {"helpful": 1.0, "polite": 1.0})
    assert found[0] == {"helpful": 0.0, "polite": -1.0}
    assert len(found) == 6


def test_a_preference_that_is_not_swept_keeps_its_own_eta():
    axes = checked_axes(parse_axes(["polite=0,1"]), NAMES)
    assert points(axes, {"helpful": None, "polite": 0.3})[1] == {"helpful": None, "polite": 1.0}
    assert base_point({"helpful": None, "polite": 0.3}) == {"helpful": 0.0, "polite": 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --eta PREFERENCE=-1,0,1; the recipe has helpful, polite"),
        (["polite"], "expected PREFERENCE=NUMBER,NUMBER"),
        (["polit=0,1"], "the recipe has no preference 'polit'; did you mean polite?"),
        (["polite=0,x"], "'x' is not a number"),
        (["polite=0,inf"], "inf is not a finite number"),
        (["polite=0,1", "polite=2"], "polite is given twice"),
        (["polite=1"], "a grid of one point (polite=1) shows no effect of eta"),
        (["polite=1,1.0"], "a grid of one point"),
    ],
)
def test_bad_grids(options, message):
    with pytest.raises(PvMergeError) as error:
        checked_axes(parse_axes(options), NAMES)
    assert message in error.value.message


def test_answers_are_shown_at_minus_one_zero_and_one():
    assert shown_values([-1.0, -0.5, 0.0, 0.5, 1.0]) == [-1.0, 0.0, 1.0]
    assert shown_values([0.0, 0.25, 0.5, 0.75]) == [0.0, 0.5, 0.75]
    axes = {"helpful": [-1.0, 0.0, 1.0], "polite": [0.0, 1.0]}
    assert shown_points(axes, {"helpful": 1.0, "polite": 1.0}) == [
        {"helpful": -1.0, "polite": 0.0},
        {"helpful": 0.0, "polite": 0.0},
        {"helpful": 1.0, "polite": 0.0},
        {"helpful": 0.0, "polite": 1.0},
    ]
