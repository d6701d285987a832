"""JSON and YAML with limits: whatever is wrong is one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from pv_merge.data.documents import (
    DEPTH,
    VALUES,
    parse_object,
    parse_yaml,
    read_object,
    read_yaml,
    validated,
)
from pv_merge.errors import PvMergeError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' stands there twice"),
        ("x: {a: 1, a: 1}", "the key 'a' stands there twice"),
        ("yes: 1\ntrue: 2", "the key True stands there twice"),
        ("a: !!int x", "the tag tag:yaml.org,2002:int is not taken"),
        ("a: !!timestamp x", "the tag tag:yaml.org,2002:timestamp is not taken"),
        ("a: !!python/object/apply:os.getcwd []", "is not taken"),
        ("a: 0x_", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: " + "[" * 5000, f"more than {DEPTH} levels"),
        ("a: " + "[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"more than {DEPTH} levels"),
        ("a: &a [*a]", f"more than {DEPTH} levels"),
        (BOMB, f"stands for more than {VALUES} values"),
        ('a: "\\ud800"', "half a character"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b}", "write its keys out"),
        ("{[1]: 2}: 3", "unhashable"),
        ("a: \x00", "not valid YAML"),
        ("just words", "expected keys such as base_model:, got text"),
    ],
)
def test_yaml_that_is_refused(text: str, line: str) -> None:
    with pytest.raises(PvMergeError, match=line) as caught:
        parse_yaml(text, "recipe.yml")
    assert caught.value.message.startswith("recipe.yml: ") and "\n" not in caught.value.message


def test_plain_yaml_keeps_its_values() -> None:
    text = "a: 5e-7\nb: 2024-01-01\nc: !!str 1\nd: &d {x: 1}\ne: {<<: *d, y: 2}\nf: [1.5, .inf]"
    assert parse_yaml(text, "f") == {
        "a": 5e-7,
        "b": "2024-01-01",
        "c": "1",
        "d": {"x": 1},
        "e": {"x": 1, "y": 2},
        "f": [1.5, float("inf")],
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"x": [{"a": 1, "a": 1}]}', "the key 'a' stands there twice"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ("[" * 100_000, f"more than {DEPTH} levels"),
        ("[" * 101 + "]" * 101, f"more than {DEPTH} levels"),
        ('{"a": ' + "1" * 5000 + "}", "not valid JSON"),
        ('{"a": 1', "was it cut short"),
        ("[1]", "expected an object with keys, got a list"),
        ("null", "expected an object with keys, got nothing"),
    ],
)
def test_json_that_is_refused(text: str, line: str) -> None:
    with pytest.raises(PvMergeError, match=line) as caught:
        parse_object(text, "config.json")
    assert caught.value.message.startswith("config.json: ") and "\n" not in caught.value.message


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert parse_object('{"a": "\\ud83d\\ude00"}', "f") == {"a": "😀"}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "dangling.json").symlink_to(tmp_path / "gone")
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    cases = {
        tmp_path: "is a folder, not a file",
        tmp_path / "pipe": "is not an ordinary file",
        tmp_path / "latin.json": r"is not text in UTF-8 \(byte 8\)",
        tmp_path / "none.json": "no such file",
        tmp_path / "latin.json" / "x": "a part of the path is a file",
        tmp_path / ("n" * 300): "the name is too long",
        tmp_path / "dangling.json": "is a link to .*gone, which does not exist",
        tmp_path / "circle.json": "links lead in a circle",
        Path("a\0b"): "is not a name of a file",
    }
    for path, line in cases.items():
        with pytest.raises(PvMergeError, match=line):
            read_object(path)
    large = tmp_path / "large.yml"
    large.write_text("a: 1\n" + "#" * (1 << 20))
    with pytest.raises(PvMergeError, match="is larger than 1 MiB"):
        read_yaml(large)


def test_wrong_types_are_a_line_each() -> None:
    class Point(BaseModel):
        x: int
        name: str

    with pytest.raises(PvMergeError) as caught:
        validated(Point, {"x": [1]}, "p.json")
    lines = caught.value.message.split("\n       ")
    assert lines == ["p.json: x: expected a valid integer, got a list", "p.json: name: is required"]
