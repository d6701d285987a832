"""The one reader of manifests: typed, so that a wrong value is a line and not a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pv_merge.artifacts.base_hash import from_other_bases, same_base
from pv_merge.artifacts.manifest import (
    RUN_MANIFEST,
    VECTOR_MANIFEST,
    BaseNote,
    parse_manifest,
    public_path,
    read_manifest,
)
from pv_merge.errors import PvMergeError


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"preference": 5}, "preference: expected a valid string, got 5"),
        ({"preference": "../../x"}, "preference: '../../x' cannot be the name of a preference"),
        ({"polarity": "both"}, "polarity: expected 'positive' or 'negative', got 'both'"),
        ({"protected": "no"}, "protected: expected a valid boolean, got 'no'"),
        ({"base": "x"}, "base: "),
        ({"base": {"weights_sha256": [1]}}, "base.weights_sha256: expected a valid string"),
        ({"kind": "tokenizer"}, "kind: expected "),
        ({"positive": {"dataset": {"pairs": "many"}}}, "positive.dataset.pairs: "),
        ({"measures": {"norm": "large"}}, "measures.norm: "),
        ({"format": 2}, "was it written by a later one"),
    ],
)
def test_wrong_types_in_a_manifest(tmp_path: Path, data: dict[str, Any], line: str) -> None:
    path = tmp_path / VECTOR_MANIFEST
    path.write_text(json.dumps(data))
    with pytest.raises(PvMergeError, match=line) as caught:
        read_manifest(tmp_path)
    assert caught.value.message.startswith(f"{path}: ")


def test_a_manifest_is_read_and_handed_on_whole(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    data = {
        "kind": "policy",
        "format": 1,
        "preference": "polite",
        "polarity": "negative",
        "protected": False,
        "base_model": {"path": "./base", "weights_sha256": "ab", "sft": {"seed": 1}},
        "later": [1],
    }
    (tmp_path / RUN_MANIFEST).write_text(json.dumps(data))
    found = read_manifest(tmp_path)
    assert found is not None and found.data == data and not found.is_vector
    assert (found.preference, found.polarity) == ("polite", "negative")
    assert (found.made_from.path, found.made_from.weights_sha256) == ("./base", "ab")
    assert read_manifest(tmp_path, VECTOR_MANIFEST) is None


def test_a_no_holds_only_for_the_name_that_it_was_said_of() -> None:
    no = parse_manifest({"preference": "harmless", "protected": False}, "m")
    assert (no.said_protected("harmless"), no.said_protected("safe")) == (False, None)
    yes = parse_manifest({"preference": "polite", "protected": True}, "m")
    assert (yes.said_protected("polite"), yes.said_protected("other")) == (True, True)


def test_same_base_by_hash_then_by_path() -> None:
    def note(path: str | None = None, sha: str | None = None) -> BaseNote:
        return BaseNote(path=path, weights_sha256=sha)

    assert same_base(note("./a", "1"), note("./b", "1")) is True
    assert same_base(note("./a", "1"), note("./a", "2")) is False
    assert same_base(note("./a", "1"), note("a")) is True
    assert same_base(note("./a", "1"), note("./b")) is False
    assert same_base(note(None, "1"), note("./b")) is None
    assert same_base(note(), note()) is None
    assert from_other_bases({"x": "1", "y": "2", "z": None}, "1") == ["y"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/alice/models/base", "base"),
        ("~/vectors/polite", "polite"),
        ("C:\\data\\pairs.jsonl", "pairs.jsonl"),
        ("./runs/positive", "./runs/positive"),
        ("alice/base@main", "alice/base@main"),
    ],
)
def test_what_is_published_names_no_place_of_the_machine(path: str, shown: str) -> None:
    assert public_path(path) == shown
