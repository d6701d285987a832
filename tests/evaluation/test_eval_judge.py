"""A judge of refusals and traits, against an endpoint in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pv_merge.asking.settings import ModelSettings
from pv_merge.data.prompts import Prompt
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.judge import REFUSES, Judge, make_judge, read_verdict
from pv_merge.evaluation.measures.refusal import RefusalMeasure
from pv_merge.evaluation.measures.registry import build_measures
from pv_merge.evaluation.measures.trait import TraitMeasure
from pv_merge.evaluation.statistics import paired_difference

from eval_tiny import Kept, prompted, subject
from scripted_endpoint import Endpoint, Said, Script, scripted


@contextmanager
def judging(folder: Path, script: Script, **settings: Any) -> Iterator[tuple[Judge, Endpoint]]:
    with scripted(script) as endpoint:
        said = ModelSettings.model_validate(
            {"url": endpoint.url, "model": "some-judge", **settings}
        )
        yield Judge(said, folder / "judge.sqlite"), endpoint


def reply_of(body: dict[str, Any]) -> str:
    text: str = body["messages"][1]["content"]
    return text.partition("<reply>\n")[2].partition("\n</reply>")[0]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("REFUSAL", True),
        ("answer.", False),
        ("It is a refusal", True),
        ("both ANSWER and REFUSAL", None),
        ("", None),
    ],
)
def test_reading_a_verdict(reply: str, verdict: bool | None) -> None:
    assert read_verdict(reply) is verdict


def test_verdicts_are_asked_once_and_kept(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        return Said("REFUSAL" if reply_of(body) == "No." else "ANSWER")

    with judging(tmp_path, script) as (judge, server):
        assert judge.refusals([("q", "No."), ("q", "Yes.")]) == [True, False]
        assert judge.refusals([("q", "Yes."), ("q", "No.")]) == [False, True]
        assert len(server.bodies) == 2
        body = server.bodies[0]
    assert (body["model"], body["temperature"]) == ("some-judge", 0)
    assert body["messages"][0]["content"] == REFUSES


def test_nonsense_is_counted_beside_what_phrases_say(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        return Said("Hm, hard to say" if "Hi" in body["messages"][1]["content"] else "ANSWER")

    prompts = [Prompt("Hi"), Prompt("Why?"), Prompt("How to harm?", False)]
    with judging(tmp_path, script) as (judge, _):
        measure = RefusalMeasure("refusal", prompted(*prompts), judge)
        record = measure.measure(subject(tmp_path), Kept(), lambda count: None)
    assert record["refused"] == [None, 0, 0]
    found = measure.estimates(record, None)
    assert (found["refusal_safe"].value, found["refusal_safe"].n) == (0.0, 1)
    assert found["refusal.unjudged"].value == pytest.approx(1 / 3)
    assert found["refusal.phrases_safe"].n == 2
    assert set(found) <= set(measure.labels())


def test_a_judge_that_says_nothing_is_one_line_and_no_answer_is_lost(tmp_path: Path) -> None:
    kept, loaded = Kept(), subject(tmp_path)
    with judging(tmp_path, lambda body: Said("Hm")) as (judge, _):
        measure = RefusalMeasure("refusal", prompted("Hi", "Why?"), judge)
        with pytest.raises(PvMergeError, match=r"none of 2 answers could be judged .*no verdict"):
            measure.measure(loaded, kept, lambda count: None)
    assert sum(len(part) for part in kept.parts.values()) == 2
    with (
        judging(tmp_path, lambda body: Said("Hm")) as (judge, _),
        pytest.raises(PvMergeError, match="gave no verdict in 12 of 12 replies"),
    ):
        judge.refusals([("q", str(number)) for number in range(20)])


def test_points_for_a_trait_are_paired_with_the_base(tmp_path: Path) -> None:
    points = {"Hello, dear friend.": 90, "Go away.": 10, "Hi.": 50}

    def script(body: dict[str, Any]) -> Said:
        text = reply_of(body)
        return Said(f"trait: {points[text]}\ncoherence: 95" if text in points else "who knows")

    with judging(tmp_path, script) as (judge, server):
        measure = TraitMeasure("polite", ("is polite", "is rude"), prompted("a", "b", "c"), judge)
        after = judge.grades(measure.manners, _pairs("Hello, dear friend.", "?", "Hi."))
        before = judge.grades(measure.manners, _pairs("Go away.", "Go away.", "Hi."))
        told = server.bodies[0]["messages"][0]["content"]
    assert "A: is polite\nB: is rude" in told
    records = [
        {
            "answers": ["x"] * 3,
            "trait": [grade and grade.trait for grade in grades],
            "coherence": [grade and grade.coherence for grade in grades],
        }
        for grades in (after, before)
    ]
    found = measure.estimates(records[0], None)
    assert (found["polite"].value, found["polite"].n) == (70.0, 2)
    assert found["polite.coherence"].value == 95
    assert found["polite.unjudged"].value == pytest.approx(1 / 3)
    items = [measure.items(record, None)["polite"] for record in records]
    assert paired_difference(*items).value == 40.0  # (90 − 10) and (50 − 50); the second is unknown


def test_a_trait_is_measured_through_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "p.txt").write_text("Why?\nHi\n")
    with scripted(lambda body: Said('{"trait": 80, "coherence": 60}')) as endpoint:
        said = {"judge_url": endpoint.url, "answers": [str(tmp_path / "p.txt")]}
        _, measure = build_measures(
            judge_trait=["kind=is kind | is cruel"], max_new_tokens=4, **said
        )
        record = measure.measure(subject(tmp_path), Kept(), lambda count: None)
    assert record["trait"] == [80, 80]
    assert measure.labels()["kind"] == "0–100: is kind (by gpt-4o)"
    assert measure.identity()["judge"] == "gpt-4o"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"judge_trait": ["is kind"]}, "give --answers FILE"),
        ({"judge_trait": ["is kind"], "answers": ["p.txt"]}, "give --judge-url URL"),
        ({"refusal": ["p.txt"], "judge_url": "localhost:8000"}, "expected http:// or https://"),
        (
            {"refusal": ["p.txt"], "judge_url": "http://me:key@h/v1"},
            "keys come from the environment",
        ),
    ],
)
def test_what_a_judge_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("Why?\n")
    with pytest.raises(PvMergeError, match=message):
        build_measures(**said)


def test_no_judge_without_an_address() -> None:
    assert make_judge({"judge_url": None, "judge_model": "m"}) is None


def _pairs(*answers: str) -> list[tuple[str, str]]:
    return [("q", answer) for answer in answers]
