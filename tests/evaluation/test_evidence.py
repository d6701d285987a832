"""The logic of the evidence: samples, mixtures, paired differences, and the page's verdicts."""

from __future__ import annotations

import csv
import json

import pytest
from click import ClickException

pytest.importorskip("benchmarks")  # not part of a source distribution

from benchmarks.evidence.compare import difference, items
from benchmarks.evidence.grids import best_allowed, value_at
from benchmarks.evidence.inputs import mixed, sample
from benchmarks.page import verdicts
from benchmarks.page.written import verdicts as page_verdicts
from benchmarks.written import read_seen
from pv_merge.evaluation.calibrate.goal import read_constraint


def change(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


def test_sample_draws_half_of_each_label(tmp_path):
    source = tmp_path / "all.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "label"])
        writer.writerows([[f"question {i}", "safe" if i < 30 else "unsafe"] for i in range(50)])
    first = sample(source, tmp_path / "a.csv", 10).read_text()
    with (tmp_path / "a.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels.count("safe") == labels.count("unsafe") == 5
    assert sample(source, tmp_path / "b.csv", 10).read_text() == first


def test_mixed_takes_as_many_of_each_kind():
    rows = mixed([list("aaaaa"), list("bb")])
    assert sorted(rows) == ["a", "a", "b", "b"]
    assert mixed([range(100), range(100, 200)]) == mixed([range(100), range(100, 200)])


class Values:
    """Stands in for a measure of two items."""

    name = "m"
    groups = ("one prompt", "another")

    def items(self, record, base):
        return {"m": record["values"]}

    def labels(self):
        return {"m": "values"}


def test_difference_is_taken_item_by_item(tmp_path):
    lines = [
        {"kind": "record", "point": {"p": 0.0}, "measure": "m", "record": {"values": [1.0, 5.0]}},
        {"kind": "record", "point": {"p": 1.0}, "measure": "m", "record": {"values": [2.0, 8.0]}},
    ]
    (tmp_path / "x.json").write_text(json.dumps({"eta": {"p": 1.0}}))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = items(tmp_path / "x.json", [Values()])
    before = items(tmp_path / "x.json", [Values()], base=True)
    found = difference(after, before, "m", [Values()])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


def test_best_allowed_point_keeps_every_bound():
    def figure(value):
        return {"value": value, "low": value, "high": value, "n": 1}

    def point(eta, helpful, harmless):
        return {
            "eta": {"helpful": eta},
            "figures": {"helpful": figure(helpful), "harmless": figure(harmless)},
        }

    whole = {
        "base": {"helpful": figure(0.0), "harmless": figure(2.0)},
        "points": [point(-1, -1.0, 3.0), point(0, 0.0, 2.0), point(1, 1.0, 1.0)],
    }
    bound = [read_constraint("harmless>=base")]
    assert best_allowed(whole, "helpful", bound) == {"eta": {"helpful": 0}, "value": 0.0, "allowed": 2}  # fmt: skip
    assert best_allowed(whole, "helpful", [])["eta"] == {"helpful": 1}
    assert value_at(whole, {"helpful": 1}, "harmless") == 1.0


def test_verdicts_follow_the_figures():
    assert "**Holds:**" in verdicts.monotone({"helpful": 0.9, "harmless": 1.0})
    assert "**Does not hold** for harmless" in verdicts.monotone({"helpful": 1.0, "harmless": 0.89})
    both = {"helpful": change(1, 2), "harmless": change(-1, 1)}
    assert "in part" in verdicts.better(both, "full", "half")
    assert "below half in harmless" in verdicts.better({**both, "harmless": change(-2, -1)}, "full", "half")  # fmt: skip
    gains = {"helpful": change(3, 5), "polite": change(1, 2)}
    assert "helpful 50%" in verdicts.extended(gains, {"helpful": 8.0, "polite": 0.0}, "polite")
    unclear = {**gains, "helpful": change(-1, 3)}
    assert "**Cannot be told** for helpful" in verdicts.extended(unclear, {"helpful": 8}, "polite")
    lost = {**gains, "helpful": change(-3, -1)}
    assert "**Does not hold** for helpful" in verdicts.extended(lost, {"helpful": 8}, "polite")
    assert "hardly any model" in verdicts.cautious(change(0, 0), [0.0, 0.01])
    assert "**Holds:**" in verdicts.cautious(change(-0.2, -0.1), [0.1, 0.3])
    assert "10 times" in verdicts.stable([[1, 0.99], [0.99, 1]], [10.0, 1.0])


def test_verdicts_on_vectors():
    assert verdicts.opposed({"a": -0.99, "b": -0.5}).startswith("**holds:** each is negative")
    assert verdicts.opposed({"a": 0.1}).startswith("**does not hold:**")
    assert verdicts.agreeing(0.35).startswith("**holds:**")
    assert verdicts.agreeing(-0.05).startswith("**does not hold:**")
    assert verdicts.interfering([0.4, 1.1, 2.3]).startswith("**holds:**")
    assert verdicts.interfering([0.4, 0.3]).startswith("**does not hold:**")


def test_knowledge_that_cannot_be_told_is_not_claimed():
    def point(eta, perplexity, accuracy):
        around = {"value": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
        return {
            "eta": eta,
            "figures": {"perplexity": {"value": perplexity}, "commonsenseqa": around},
            "change_from_base": {"commonsenseqa": change(accuracy - 0.65, accuracy - 0.55)},
        }

    poor = [point(0, 8.0, 0.2), point(0.5, 8.1, 0.2), point(1, 9.0, 0.2)]
    assert "**Does not hold for perplexity:**" in verdicts.knowing(poor)
    assert "no better than guessing" in verdicts.knowing([point(0, 8.0, 0.2), point(1, 9.0, 0.2)])
    good = [point(0, 8.0, 0.6), point(1, 8.1, 0.6), point(4, 80.0, 0.2)]
    assert verdicts.knowing(good) == (
        "**Holds:** Perplexity stays within 1.05 × the base's up to η = 1 and is 10 times it at η = 4. "
        "CommonsenseQA falls below the base's from η = 4."
    )


def test_calibration_must_be_near_and_cheap():
    best = {"eta": {"helpful": 1.0}, "value": 3.0}
    data = {"suggested": {"helpful": 0.5}, "best": best, "step": 0.5, "evaluations": 8, "points": 25}  # fmt: skip
    assert "**Holds:** after 8 of 25" in verdicts.suggested(data)
    assert "**Does not hold:**" in verdicts.suggested({**data, "evaluations": 9})
    assert "further than one step" in verdicts.suggested({**data, "suggested": {"helpful": 0.0}})


def written_points(loops, words):
    def around(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    points = []
    for eta, share, count in zip((-1.0, 0.0, 1.0), loops, words, strict=True):
        figures = {"written_loops": around(share), "perplexity": around(10.0 + abs(eta))}
        points.append({"eta": eta, "figures": figures, "median_words": count})
    steps = [
        {"from": a, "to": b, "figure": "concise", "change": change(1, 2)}
        for a, b in ((-1.0, 0.0), (0.0, 1.0))
    ]
    seen = [True] * 8 + [False] * 2
    return {"preference": "concise", "points": points, "steps": steps, "seen": seen}


def test_what_was_wanted_of_written_answers():
    good = page_verdicts(written_points((0.05, 0.0, 0.05), (40, 30, 20)))
    assert all(line.startswith("**Holds:**") for line in good) and len(good) == 5
    bad = page_verdicts(written_points((0.06, 0.0, 0.0), (40, 30, 21)))
    assert [line.startswith("**Holds:**") for line in bad] == [False, True, True, False, True]
    assert "up to 6% more answers loop than at the base (at η = -1" in bad[0]


def test_what_a_reader_saw_has_a_digit_for_each_prompt():
    assert read_seen("101", 3) == [True, False, True]
    for text in ("10", "102"):
        with pytest.raises(ClickException, match="expected 3 digits"):
            read_seen(text, 3)
