"""Data sets that nobody should have: nulls, half characters, endless lines, bombs, other encodings."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pv_merge.data.instructions import load_examples
from pv_merge.data.json_rows import LINE_BYTES
from pv_merge.data.pairs import load_pairs
from pv_merge.data.settings import InstructionDataset, PairsDataset
from pv_merge.errors import PvMergeError

ROW = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
LINE = json.dumps(ROW).encode() + b"\n"


def refused(path: Path, line: str, **said: Any) -> None:
    with pytest.raises(PvMergeError, match=line) as caught:
        load_pairs(PairsDataset(path=str(path), **said))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (json.dumps({**ROW, "chosen": None}), "row 1 is not of the format pairs: chosen is missing"),
        (json.dumps({**ROW, "prompt": 3}), "prompt must be text, got int"),
        (json.dumps({**ROW, "prompt": [{"role": "user", "content": None}]}), "role and content, both text"),
        (json.dumps({**ROW, "prompt": [["user", "x"]]}), "role and content, both text"),
        ('{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}', "line 1: .* holds half a character"),
        ('{"prompt": "a", "prompt": "b", "chosen": "a", "rejected": "b"}', "stands there twice"),
        ("[" * 5000, "nested more than 100"),
        ('{"prompt":' + '{"a":' * 5000, "nested more than 100"),
        ("3", "line 1: expected an object"),
        ("[3]", "row 1: expected an object"),
        ("[]", "the data set is empty"),
        ('{"prompt": "a", ', "line 1: not valid JSON"),
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
def test_rows(content: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    refused(tmp_path / "x.jsonl", line)
    (tmp_path / "x.jsonl").write_bytes(LINE)  # and the reader lives


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252"])
def test_other_encodings(encoding: str, tmp_path: Path) -> None:
    text = json.dumps({**ROW, "chosen": "é"}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_bytes(text.encode(encoding))
    refused(tmp_path / "x.jsonl", "line 1: is not text in UTF-8")
    (tmp_path / "x.csv").write_bytes(f"prompt,chosen,rejected\na,{text!r},b\n".encode(encoding))
    refused(tmp_path / "x.csv", "cannot be (read as rows|loaded)")


def test_a_mark_of_utf8_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + LINE)
    assert load_pairs(PairsDataset(path=str(tmp_path / "x.jsonl"))).pairs[0].chosen == "So."
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf [" + LINE + b"]")
    assert load_pairs(PairsDataset(path=str(tmp_path / "x.json"))).pairs[0].chosen == "So."


def test_an_endless_line(tmp_path: Path) -> None:
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.write(LINE)
        file.write(b'{"prompt": "')
        file.truncate(LINE_BYTES * 6)  # 100 MB, of which the disk holds nothing
    refused(tmp_path / "x.jsonl", "line 2 is larger than 16 MiB")


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl", "x.csv.gz", "x.csv"])
def test_a_bomb(name: str, tmp_path: Path) -> None:
    with gzip.open(tmp_path / name, "wb", compresslevel=9) as file:
        file.write(LINE)
        for _ in range(40):
            file.write(b" " * (1 << 20))
    refused(tmp_path / name, "unpacks to more than 200 times its size")


def test_compressed_in_another_way_or_cut(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(bz2.compress(LINE))
    refused(tmp_path / "x.jsonl", "is compressed by bzip2; only gzip is read")
    whole = gzip.compress(LINE * 100)
    (tmp_path / "x.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "x.jsonl.gz", "is not a whole gzip file")


def test_a_gzipped_file_and_parts_of_one(tmp_path: Path) -> None:
    rows = [{**ROW, "prompt": str(number)} for number in range(10)]
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n\n" for row in rows)

    def prompts(split: str) -> list[str]:
        found = load_pairs(PairsDataset(path=str(tmp_path / "x.jsonl.gz"), split=split))
        return [pair.prompt[0][1] for pair in found.pairs]

    assert prompts("train") == [str(number) for number in range(10)]
    assert prompts("train[:3]") == ["0", "1", "2"]
    assert prompts("train[80%:]+train[:1]") == ["8", "9", "0"]
    refused(tmp_path / "x.jsonl.gz", "cannot be loaded", split="train[x:]")


def test_text_that_looks_like_a_time_stays_text(tmp_path: Path) -> None:
    rows = [{**ROW, "chosen": "2020-01-01T00:00:00"}, {**ROW, "chosen": "2021-01-01T00:00:00"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_pairs(PairsDataset(path=str(tmp_path / "x.jsonl")))
    assert [pair.chosen for pair in found.pairs] == [row["chosen"] for row in rows]


def test_a_folder_with_a_row_that_is_nested_too_deep(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(LINE)
    assert len(load_pairs(PairsDataset(path=str(folder))).pairs) == 1
    (folder / "train.jsonl").write_bytes(LINE + b'{"prompt": ' + b"[" * 5000)
    refused(folder, "nested more than 100")


def test_instruction_rows(tmp_path: Path) -> None:
    for row, line in (
        ({"instruction": "a", "input": 3, "output": "b"}, "input must be text, got int"),
        ({"instruction": "a", "output": None}, "output is missing"),
    ):
        (tmp_path / "x.jsonl").write_text(json.dumps(row))
        with pytest.raises(PvMergeError, match=line):
            load_examples(InstructionDataset(path=str(tmp_path / "x.jsonl")))
