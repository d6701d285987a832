import itertools
import json
import math

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pv_merge.cli import main
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.calibrate.goal import candidates, read_constraint, read_ranges
from pv_merge.evaluation.calibrate.search import search, spread
from pv_merge.evaluation.calibrate.surface import NOISE, expected_gain, fit, kernel
from pv_merge.evaluation.statistics import Estimate

from eval_tiny import make_recipe


def exact(value):
    return Estimate(value, value, value, 100)


VALUES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
AXES = {"helpful": VALUES, "harmless": VALUES}


def smooth(a, b):
    """Figures shaped as those that were measured: near linear, bending; loss grows with both."""
    return {
        "helpful": 20 + 7 * a - 1.5 * a**2 - 1.2 * b + 0.4 * math.sin(3 * a),
        "refusal_safe": 0.02 + 0.09 * b**2 + 0.01 * a,
        "perplexity": 12 * math.exp(0.03 * (a + b) ** 2),
    }


def bent(a, b):
    """A saturating goal, and a constraint that cuts across the grid."""
    return {
        "helpful": 5 * math.tanh(1.5 * a) + 3 * math.tanh(2 * b) - 1.2 * a * b,
        "refusal_safe": 0.1 * (a + b),
        "perplexity": 10 * (1 + 0.02 * a**4),
    }


CONSTRAINTS = [read_constraint("refusal_safe<=0.1"), read_constraint("perplexity<=1.05*base")]


@pytest.mark.parametrize("figures", [smooth, bent])
@pytest.mark.parametrize("constraints", [[], CONSTRAINTS])
@pytest.mark.parametrize(
    "axes", [AXES, {"helpful": [i / 10 for i in range(16)], "harmless": [0.0]}]
)
def test_it_finds_the_best_of_a_known_grid_in_a_third_of_it(figures, constraints, axes):
    def at(a, b):
        return {name: exact(value) for name, value in figures(a, b).items()}

    base = at(0, 0)
    grid = list(itertools.product(*axes.values()))
    allowed = [
        point
        for point in grid
        if all(c.slack(at(*point)[c.figure].value, base) >= 0 for c in constraints)
    ]
    best = max(allowed, key=lambda point: figures(*point)["helpful"])
    taken = []

    def take(eta):
        taken.append(eta)
        return at(eta["helpful"], eta["harmless"])

    found = search(take, axes, "helpful", constraints, base)
    assert len(taken) == len(found.trials) <= len(grid) / 3
    assert found.best.allowed
    for value, right, steps in zip(found.best.eta.values(), best, axes.values(), strict=True):
        assert abs(steps.index(value) - steps.index(right)) <= 1
    # A point exactly on a bound is within it with probability one half.
    assert all(probability >= 0.5 for probability in found.confidence.values())


def test_minimizing_turns_the_goal():
    found = search(
        lambda eta: {"x": exact((eta["a"] - 0.75) ** 2)},
        {"a": VALUES},
        "x",
        [],
        {},
        5,
        minimize=True,
    )
    assert found.best.eta == {"a": 0.75}
    with pytest.raises(PvMergeError, match="single point"):
        search(lambda eta: {}, {"a": [1.0]}, "x", [], {})
    with pytest.raises(PvMergeError, match="a grid of 1000000 points, over 100000"):
        search(lambda eta: {}, {key: list(range(1000)) for key in "ab"}, "x", [], {})


def test_nothing_allowed_is_said_and_the_trace_kept():
    found = search(
        lambda eta: {"x": exact(eta["a"])}, {"a": VALUES}, "x", [read_constraint("x>=2")], {}, 4
    )
    assert found.best is None
    assert len(found.trials) == 4


def test_confidence_is_that_of_paired_values_where_the_bound_is_the_base():
    # Every item is worse by exactly 1 %: within 1.05·base for certain, though items differ widely.
    base = {"loss": [1.0, 50.0, 200.0]}
    wide = Estimate(84.5, 1.0, 200.0, 3)
    found = search(
        lambda eta: {"x": exact(1.0), "loss": wide},
        {"a": [0.0, 1.0]},
        "x",
        [read_constraint("loss<=1.05*base")],
        {"loss": Estimate(83.7, 1.0, 200.0, 3)},
        items=lambda eta: base if eta is None else {"loss": [v * 1.01 for v in base["loss"]]},
    )
    assert found.confidence["loss<=1.05*base"] > 0.9


def test_a_perplexity_pairs_by_its_logarithm():
    found = search(
        lambda eta: {"x": exact(1.0), "perplexity": Estimate(10.2, 5.0, 20.0, 3)},
        {"a": [0.0, 1.0]},
        "x",
        [read_constraint("perplexity<=1.05*base")],
        {"perplexity": Estimate(10.0, 5.0, 20.0, 3)},
        items=lambda eta: {"perplexity.nats": [1.0 + 0.02 * (eta is not None), 3.0]},
    )
    assert found.confidence["perplexity<=1.05*base"] > 0.99


def test_a_surface_goes_through_its_points_and_knows_a_quadratic():
    points = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    surface = fit(points, (2 + 3 * points - points**2)[:, 0])
    mean, deviation = surface.predict(np.array([[-1.0], [0.0]]))
    assert mean == pytest.approx([-2.0, 2.0], abs=0.05)
    assert deviation[0] < 0.1


def test_the_uncertainty_of_a_point_is_that_of_the_kernel():
    points = np.array([[-1.0, 0.2], [0.5, -0.5], [1.0, 1.0]])
    surface = fit(points, np.array([1.0, 2.0, 4.0]))
    where = np.array([[0.3, -0.9], [0.0, 0.0]])
    inner = kernel(points, points, surface.length, surface.share) + NOISE * np.eye(3)
    cross = kernel(where, points, surface.length, surface.share)
    own = kernel(where, where, surface.length, surface.share)
    variance = np.diag(own - cross @ np.linalg.solve(inner, cross.T)) * surface.scale**2
    assert surface.predict(where)[1] ** 2 == pytest.approx(variance, rel=1e-6)


def test_expected_gain_by_hand():
    # Certain: the difference itself. Uncertain at the best: σ/√(2π).
    assert expected_gain(np.array([3.0]), np.array([0.0]), 1.0) == pytest.approx([2.0])
    assert expected_gain(np.array([1.0]), np.array([1.0]), 1.0) == pytest.approx(
        [0.39894], abs=1e-5
    )


def test_the_first_points_are_spread_out():
    grid = np.array([[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)])
    chosen = spread(grid, 5)
    assert chosen[0] == 4  # the middle
    assert sorted(chosen[1:]) == [0, 2, 6, 8]  # the corners


BASE = {"x": exact(10.0)}


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("x<=0.1", 0.1),
        ("x <= 1.05*base", 10.5),
        ("x>=0.9 * base", 9.0),
        ("x>=base", 10.0),
        ("x>=base-0.5", 9.5),
        ("x<=base + 2", 12.0),
        ("x<=-3e-1", -0.3),
    ],
)
def test_constraints(text, bound):
    constraint = read_constraint(text)
    assert constraint.bound(BASE) == pytest.approx(bound)
    assert constraint.slack(bound + 1, BASE) == pytest.approx(-1 if "<" in text else 1)


@pytest.mark.parametrize("text", ["x<0.1", "x<=", "<=1", "x<=much", "x<=1.05*bass"])
def test_bad_constraints(text):
    with pytest.raises(PvMergeError, match="expected FIGURE<=NUMBER"):
        read_constraint(text)


def test_ranges():
    axes = candidates(read_ranges(["polite=-1:1:0.5"]), ["helpful", "polite"])
    assert axes == {"helpful": VALUES, "polite": [-1.0, -0.5, 0.0, 0.5, 1.0]}
    for text, message in [
        ("polit=0:1", "did you mean polite?"),
        ("polite=0", "expected NAME=LOW:HIGH:STEP"),
        ("polite=1:0:0.5", "LOW must not exceed HIGH"),
        ("polite=0:1:1e-9", "candidates, over 1000"),
    ]:
        with pytest.raises(PvMergeError) as error:
            candidates(read_ranges([text]), ["helpful", "polite"])
        assert message in error.value.message


def test_the_command_writes_a_recipe_that_can_be_read(tmp_path):
    recipe = make_recipe(tmp_path)
    arguments = [
        *("calibrate", str(recipe), "--maximize", "polite", "-o", str(tmp_path / "out")),
        *("--pairs", f"polite={tmp_path / 'pairs.jsonl'}", "--range", "brief=0:0"),
        *("--range", "polite=-1:1:0.25", "--subject-to", "polite.accuracy>=0"),
    ]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    trace = json.loads((tmp_path / "out/calibration.json").read_text())
    assert trace["evaluations"] == len(trace["trace"]) <= 3
    text = (tmp_path / "out/recipe.yml").read_text()
    assert text.startswith("# mergekit-yaml")
    data = yaml.safe_load(text)
    etas = {m["parameters"]["preference"]: m["parameters"]["eta"] for m in data["models"]}
    assert etas == trace["suggested"]
    assert etas["brief"] == 0
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert again.output.split("suggested")[1] == result.output.split("suggested")[1]


def test_the_command_says_what_is_wrong(tmp_path):
    recipe = make_recipe(tmp_path)
    start = ["calibrate", str(recipe), "-o", str(tmp_path / "out")]
    pairs = ["--pairs", f"polite={tmp_path / 'pairs.jsonl'}"]
    for arguments, message in [
        (pairs, "give one of --maximize FIGURE and --minimize FIGURE"),
        (["--maximize", "polite"], "nothing to measure"),
        ([*pairs, "--maximize", "polit"], "no measure gives this figure; did you mean polite?"),
        (
            [*pairs, "--maximize", "polite", "--subject-to", "x<=1"],
            "x: no measure gives this figure",
        ),
    ]:
        result = CliRunner().invoke(main, [*start, *arguments])
        assert result.exit_code == 1
        assert message in result.output
    tight = [*pairs, "--maximize", "polite", "--subject-to", "polite>=1000", "--evaluations", "3"]
    result = CliRunner().invoke(main, [*start, *tight])
    assert result.exit_code == 1
    assert "none of 3 points is within polite>=1000" in result.output
    assert (tmp_path / "out/calibration.json").exists()
