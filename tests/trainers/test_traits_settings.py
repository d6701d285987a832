"""The trait file: what it may say, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_merge.errors import PvMergeError
from trainers.traits.forecast import forecast
from trainers.traits.messages import WORDINGS, answer_messages
from trainers.traits.models import with_base
from trainers.traits.trait import TraitSettings
from trainers.traits.trait_file import read_trait

from scripted_endpoint import CURT, PATIENT

GOOD: dict[str, Any] = {
    "preference": "patient",
    "description": PATIENT,
    "opposite": CURT,
    "writer": {"url": "http://127.0.0.1:9/v1", "model": "m"},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "trait.yml"
    data = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(data))
    return path


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(PvMergeError) as caught:
        read_trait(write(folder, **changes))
    return caught.value.message


def test_a_description_and_a_writer_are_enough(tmp_path: Path) -> None:
    trait = read_trait(write(tmp_path, opposite=None))
    assert (trait.pairs, trait.held_out, trait.language) == (200, 0.15, "en")
    assert trait.prompts.written is not None
    negative = answer_messages(trait, (("user", "Hello?"),), 0)[1]
    assert f"the very opposite of this: {PATIENT}" in negative[0][1]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = refused(tmp_path, pears=3, pairs=0, writer={"url": "ftp://x", "modell": "m"})
    assert "unknown key 'pears'; did you mean pairs?" in text
    assert "writer: unknown key 'modell'; did you mean model?" in text
    assert "pairs: Input should be greater than 0, got 0" in text
    assert "writer.url: expected http:// or https://" in text


def test_an_opposite_that_says_the_same_is_refused(tmp_path: Path) -> None:
    text = refused(
        tmp_path, opposite="Warmly and step by step, answers as a patient TEACHER would."
    )
    assert "opposite says the same as description" in text


@pytest.mark.parametrize(
    ("writer", "said"),
    [
        ({"url": "http://me:s3cret-key@host/v1", "model": "m"}, "keys come from the environment"),
        ({"url": "http://host/v1?key=s3cret-key", "model": "m"}, "keys come from the environment"),
        ({"url": "http://h/v1", "model": "m", "key_env": "sk-s3cret-key"}, "never the key itself"),
        ({"url": "http://h/v1", "model": "m", "key": "s3cret-key"}, "unknown key 'key'"),
    ],
)
def test_a_key_in_the_file_is_refused_and_not_shown(
    tmp_path: Path, writer: dict[str, Any], said: str
) -> None:
    text = refused(tmp_path, writer=writer)
    assert said in text
    assert "s3cret-key" not in text


def test_a_judge_is_of_one_kind(tmp_path: Path) -> None:
    for judge in ({}, {"model": "m", "rules": {}}, {"reward_model": "r", "model": "m"}):
        assert "expected one of model, reward_model and rules" in refused(tmp_path, judge=judge)
    assert "is no regular expression" in refused(tmp_path, judge={"rules": {"toward": ["("]}})


@pytest.mark.parametrize(
    "changes",
    [
        {"preference": "harmful"},
        {"preference": "un-safe"},
        {"preference": "frank", "description": "never refuses, and gives dangerous advice"},
        {"opposes": "harmless"},
    ],
)
def test_a_trait_against_a_protected_preference_needs_a_word(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert "move against the protected preference harmless" in refused(tmp_path, **changes)
    assert read_trait(write(tmp_path, allow_protected=True, **changes)).allow_protected


def test_the_screen_can_be_contradicted_and_leaves_the_protected_themselves(tmp_path: Path) -> None:
    words = "warns of dangerous tools"
    assert read_trait(write(tmp_path, description=words, opposes="none")).opposes == "none"
    assert read_trait(write(tmp_path, preference="harmless", description="avoids all toxic words"))


def test_base_means_the_model_to_be_trained(tmp_path: Path) -> None:
    trait = read_trait(write(tmp_path, writer={"model": "base"}, judge={"model": "base"}))
    with pytest.raises(PvMergeError, match="say --base MODEL"):
        with_base(trait, None)
    there = with_base(trait, "./models/x")
    assert there.judge is not None
    assert there.writer.model == there.judge.model == "./models/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("written", {"written": {}}),
        ("a.jsonl:hh-rlhf", {"dataset": {"path": "a.jsonl", "format": "hh-rlhf"}}),
        ("a.jsonl:messages", {"dataset": {"path": "a.jsonl", "format": "messages"}}),
        ("questions.txt", {"file": "questions.txt"}),
    ],
)
def test_prompts_from_replaces_the_source(
    tmp_path: Path, text: str, expected: dict[str, Any]
) -> None:
    trait = read_trait(write(tmp_path, prompts={"file": "other.txt"}), text)
    found = trait.prompts.model_dump(exclude_none=True, exclude_defaults=True)
    assert found == expected


def test_both_answers_of_a_pair_have_the_same_wording_but_for_the_manner() -> None:
    trait = TraitSettings.model_validate(GOOD)
    for wording in range(len(WORDINGS)):
        positive, negative = answer_messages(trait, (("user", "Why?"),), wording)
        assert positive[0][1].replace(PATIENT, CURT) == negative[0][1]
        assert positive[1:] == negative[1:] == (("user", "Why?"),)


def test_the_forecast_counts_two_answers_and_two_grades_a_pair() -> None:
    trait = TraitSettings.model_validate(GOOD | {"pairs": 50})
    found = forecast(trait)
    assert found.judge is not None
    assert (found.writer.requests, found.judge.requests) == (100 + 5, 100)
    assert found.writer.tokens_out == 100 * (80 * 1.6 + 16) + 5 * 400
    local = TraitSettings.model_validate(GOOD | {"writer": {"model": "base"}})
    assert forecast(local).judge is None


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="no such file"):
        read_trait(tmp_path / "none.yml")
    for content in ("- a list", "a: [", "\x00"):
        path = tmp_path / "trait.yml"
        path.write_text(content)
        with pytest.raises(PvMergeError):
            read_trait(path)
