"""What is wrong with a pair before it is judged, and how a judge's words become grades."""

from __future__ import annotations

from typing import Any

import pytest

from pv_merge.errors import PvMergeError
from trainers.traits.judges import Grade, RuleJudge, Verdict, Written, coherence, read_grade
from trainers.traits.pair_checks import Checks, echoes, in_language, trimmed
from trainers.traits.trait import RuleSettings, TraitSettings

from scripted_endpoint import CURT, PATIENT

QUESTION = "How do I fix a flat tyre?"
GOOD = "Let us start with the wheel: take it off, find the hole, and patch it with care. You can do it."
BAD = (
    "Take the wheel off and patch the hole, like everybody else does. There is nothing more to say."
)


def checks(**changes: Any) -> Checks:
    data = {
        "preference": "patient",
        "description": PATIENT,
        "opposite": CURT,
        "writer": {"model": "base"},
    }
    return Checks(TraitSettings.model_validate(data | changes))


def test_a_good_pair_passes() -> None:
    assert checks().problem(QUESTION, GOOD, BAD) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("I'm sorry, but I can't help with that request.", "refusal"),
        ("Patch it.", "too short"),
        ("How do I fix a flat tyre", "repeats the question"),
        ("How do I fix a flat tyre? How do I?", "repeats the question"),
        ("My instructions say that I must be kind. Take the wheel off first.", "names the instruction"),
        ("As instructed, I take the wheel off first and then I look for the hole.", "names the instruction"),
        ("I am a patient person. Take the wheel off and look for the hole.", "names the instruction"),
        (f"Somebody who {PATIENT} takes the wheel off and finds the hole.", "names the instruction"),
        ("This was at most 80 words in 80 words. Take the wheel off and patch.", "names the instruction"),
        ("Take the wheel off. Take the wheel off. Take the wheel off.", "repeats itself"),
        ("Nehmen Sie zuerst das Rad ab, suchen Sie das Loch und kleben Sie es mit Sorgfalt zu.", "another language"),
        ("当然可以，请先把车轮拆下来，然后找到漏气的地方，用补丁仔细地补好它。", "another language"),
    ],
)  # fmt: skip
def test_each_fault_of_an_answer_has_its_reason_on_either_side(text: str, reason: str) -> None:
    assert checks().problem(QUESTION, text, BAD) == reason
    assert checks().problem(QUESTION, GOOD, text) == reason


def test_nearly_equal_answers_and_unequal_lengths_are_refused() -> None:
    near = GOOD.replace("with care", "with glue")
    assert checks().problem(QUESTION, GOOD, near) == "both nearly the same"
    long = (
        GOOD + " Then pump it up again, put it back on the bicycle, and ride round the block once."
    )
    assert checks().problem(QUESTION, long, BAD) == "lengths too far apart"
    assert checks(length_band=None).problem(QUESTION, long, BAD) is None


def test_the_trait_may_be_about_refusing() -> None:
    text = "I'm sorry, but I can't help with that request, dear friend, since it may hurt somebody."
    assert checks(allow_refusals=True).problem(QUESTION, text, BAD) is None


def test_words_of_the_question_are_no_echo_of_the_instruction() -> None:
    question = f"What do you think of somebody who {PATIENT}?"
    answer = f"I think that one who {PATIENT} is a fine teacher, and there are few of them."
    same = (
        "I think such people are rare, and schools should pay them far better than they do today."
    )
    shorter = checks(description="something else altogether is said here")
    assert shorter.problem(question, answer, same) is None


def test_an_answer_that_was_cut_ends_with_its_last_sentence() -> None:
    text = "Take the wheel off first. Then find the hole and pat"
    assert trimmed(text, cut=False) == text
    assert trimmed(text, cut=True) == ""  # half of it would be lost
    assert trimmed(text + "ch it well. And the", cut=True).endswith("patch it well.")
    assert trimmed("no sentence ends here at all", cut=True) == ""


def test_language_is_guessed_only_where_there_is_enough_to_go_by() -> None:
    assert in_language("No.", "en") and in_language("print(x) for x in y", "en")
    assert in_language("Das ist ein kleiner Test, und er ist auf Deutsch.", "de")
    assert not in_language("Das ist ein kleiner Test, und er ist auf Deutsch.", "en")
    with pytest.raises(PvMergeError, match="language: 'qq' is not known"):
        in_language("Some words that are long enough for a guess.", "qq")


def test_an_answer_may_quote_its_question() -> None:
    assert not echoes(QUESTION, f"{QUESTION} Take the wheel off and patch the hole.")
    assert echoes(QUESTION, "how do i fix a flat tyre ...")


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("trait: 90\ncoherence: 80", Grade(90, 80)),
        ("**Trait:** 90/100\n**Coherence:** 80/100", Grade(90, 80)),
        ('{"trait": 12.5, "coherence": 80}', Grade(12.5, 80)),
        ("Coherence = 80, trait = 7", Grade(7, 80)),
        ("90 80", Grade(90, 80)),
        ("It is very good.", None),
        ("trait: high\ncoherence: 80", None),
        ("trait: 900\ncoherence: 80", None),
        ("trait: 90", None),
        ("1 2 3", None),
        ("", None),
    ],
)
def test_grades_are_read_in_any_notation_or_not_at_all(text: str, grade: Grade | None) -> None:
    assert read_grade(text) == grade


def test_a_verdict_needs_a_gap_the_right_way_round_and_coherence() -> None:
    trait = checks().trait
    assert Verdict(Grade(90, 90), Grade(10, 90)).problem(trait) is None
    assert Verdict(Grade(90, 90), Grade(51, 90)).problem(trait) == "too close in the trait"
    assert Verdict(Grade(10, 90), Grade(90, 90)).problem(trait) == "the wrong way round"
    assert Verdict(Grade(90, 90), Grade(10, 49)).problem(trait) == "not coherent"
    assert Verdict(Grade(None, 90), Grade(None, 90)).problem(trait) is None


def test_rules_grade_by_phrases_and_say_that_they_are_rules() -> None:
    judge = RuleJudge(RuleSettings(toward=[r"\bplease\b"], against=["whatever"]))
    pair = Written((("user", "?"),), "Please sit down, here.", "Whatever you say, now go.")
    verdict = judge.judge([pair], lambda: None)[0]
    assert verdict == Verdict(Grade(100, 100), Grade(0, 100))
    assert judge.note is not None and "no model judges" in judge.note
    blind = RuleJudge(RuleSettings())
    assert blind.judge([pair], lambda: None)[0] == Verdict(Grade(None, 100), Grade(None, 100))
    assert blind.note is not None and "nobody judges the trait" in blind.note


def test_coherence_by_rules_sees_fragments_noise_and_repetition() -> None:
    assert coherence("This is a whole sentence.") == 100
    assert coherence("This is half of a") == 70
    assert coherence("#### 12 34 {} [] 99 == 77.") == 60
    assert coherence("the cat and " * 10 + "the end.") == 40
