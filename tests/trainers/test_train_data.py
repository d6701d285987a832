"""The formats of preference pairs and instruction rows, on hand-written rows and on real files."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pv_merge.data.instructions import load_examples
from pv_merge.data.pairs import FORMATS, Pair, load_pairs
from pv_merge.data.settings import InstructionDataset, PairsDataset
from pv_merge.errors import PvMergeError

from train_tiny import SHARED, pair_rows, write_rows

PKU = {
    "prompt": "How?",
    "response_0": "Like this.",
    "response_1": "I will not say.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 0,
    "safer_response_id": 1,
}
Q = (("user", "How?"),)


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    def load(rows: list[dict[str, Any]], form: str, **options: Any) -> Any:
        return load_pairs(
            PairsDataset(
                path=str(write_rows(tmp_path / "rows.jsonl", rows)), format=form, **options
            )
        )

    return load


@pytest.mark.parametrize(
    ("form", "row", "options", "expected"),
    [
        ("pairs", {"prompt": "How?", "chosen": "so", "rejected": "no"}, {}, Pair(Q, "so", "no")),
        (
            "pairs",
            {
                "prompt": [said("system", "Be kind."), said("user", "How?")],
                "chosen": [said("assistant", "so")],
                "rejected": [said("assistant", "no")],
            },
            {},
            Pair((("system", "Be kind."), ("user", "How?")), "so", "no"),
        ),
        (
            "instruction",
            {"instruction": "Add.", "input": "1 + 1", "chosen": "2", "rejected": "3"},
            {},
            Pair((("user", "Add.\n\n1 + 1"),), "2", "3"),
        ),
        (
            "instruction",
            {"instruction": "Add.", "input": "", "chosen": "2", "rejected": "3"},
            {},
            Pair((("user", "Add."),), "2", "3"),
        ),
        (
            "hh-rlhf",
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?\n\nAssistant: So.",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?\n\nAssistant: No.",
            },
            {},
            Pair((("user", "Hi"), ("assistant", "Hello"), ("user", "How?")), "So.", "No."),
        ),
        (
            "pku-saferlhf",
            PKU,
            {"label": "better_response_id"},
            Pair(Q, "Like this.", "I will not say."),
        ),
        (
            "pku-saferlhf",
            PKU,
            {"label": "safer_response_id"},
            Pair(Q, "I will not say.", "Like this."),
        ),
        ("safe-first", PKU, {}, Pair(Q, "I will not say.", "Like this.")),
        (
            "safe-first",
            {**PKU, "is_response_0_safe": True},
            {},
            Pair(Q, "Like this.", "I will not say."),
        ),
        (
            "ultrafeedback",
            {
                "chosen": [said("user", "How?"), said("assistant", "So.")],
                "rejected": [said("user", "How?"), said("assistant", "No.")],
            },
            {},
            Pair(Q, "So.", "No."),
        ),
    ],
)
def test_a_row_of_each_format(
    load: Callable[..., Any],
    form: str,
    row: dict[str, Any],
    options: dict[str, str],
    expected: Pair,
) -> None:
    assert load([row], form, **options).pairs == (expected,)


def test_swapping_swaps_the_answers_and_twice_restores_them() -> None:
    pair = Pair(Q, "so", "no")
    assert pair.swapped() == Pair(Q, "no", "so")
    assert pair.swapped().swapped() == pair


@pytest.mark.parametrize(
    ("form", "row", "options", "message"),
    [
        ("pairs", {"prompt": "a", "chosen": "b"}, {}, r"row 1 .* rejected is missing"),
        ("pairs", {"promt": "a", "chosen": "b", "rejected": "c"}, {}, r"prompt is missing; did you mean promt\?"),
        ("pairs", {"prompt": "a", "chosen": 3, "rejected": "c"}, {}, "chosen must be text, got int"),
        (
            "pairs",
            {"prompt": "a", "chosen": [said("user", "a"), said("assistant", "b")], "rejected": "c"},
            {},
            "chosen must be one message, the answer; for whole dialogues use ultrafeedback",
        ),
        ("pairs", {"prompt": [{"text": "a"}], "chosen": "b", "rejected": "c"}, {}, "prompt must be messages with role and content"),
        ("instruction", {"prompt": "a", "chosen": "b", "rejected": "c"}, {}, "instruction is missing"),
        ("hh-rlhf", {"chosen": "Hello", "rejected": "\n\nHuman: a\n\nAssistant: b"}, {}, r'chosen must be a dialogue from "\\n\\nHuman:"'),
        ("ultrafeedback", {"chosen": "b", "rejected": "c"}, {}, "chosen must be a list of messages"),
        (
            "ultrafeedback",
            {"chosen": [said("user", "a"), said("assistant", "b")], "rejected": [said("user", "x"), said("assistant", "c")]},
            {},
            "chosen and rejected must share every message but the last",
        ),
        ("pku-saferlhf", PKU, {}, "pku-saferlhf needs label: better_response_id .* got None"),
        ("pku-saferlhf", PKU, {"label": "safer_respons_id"}, r"did you mean safer_response_id\?"),
        ("pku-saferlhf", {"prompt": "a"}, {"label": "safer_response_id"}, "safer_response_id is missing"),
        ("safe-first", {**PKU, "is_response_1_safe": None}, {}, "is_response_1_safe is missing"),
        ("pears", {"prompt": "a"}, {}, r"unknown format 'pears'; did you mean pairs\?"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named_with_the_reason(
    load: Callable[..., Any], form: str, row: dict[str, Any], options: dict[str, str], message: str
) -> None:
    with pytest.raises(PvMergeError, match=message):
        load([row], form, **options)


def test_the_message_lists_the_columns_and_formats(load: Callable[..., Any]) -> None:
    with pytest.raises(PvMergeError, match=r"its columns: answer, question; formats: pairs, instr"):
        load([{"question": "a", "answer": "b"}], "pairs")


def test_equal_answers_are_dropped_and_counted(load: Callable[..., Any]) -> None:
    rows = [*pair_rows(3), {"prompt": "a", "chosen": "b", "rejected": "b"}]
    found = load(rows, "pairs")
    assert (len(found.pairs), found.equal) == (3, 1)


def test_equal_answers_in_every_row_are_an_error(load: Callable[..., Any]) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 2
    with pytest.raises(PvMergeError, match="no usable row of 2: in 2 chosen equals rejected"):
        load(rows, "pairs")


def test_a_label_that_picks_neither_answer_drops_the_row(load: Callable[..., Any]) -> None:
    found = load([PKU, {**PKU, "safer_response_id": -1}], "pku-saferlhf", label="safer_response_id")
    assert (len(found.pairs), found.undecided) == (1, 1)


def test_hh_dialogues_that_part_early_are_dropped(load: Callable[..., Any]) -> None:
    same = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    parted = {**same, "rejected": "\n\nHuman: x\n\nAssistant: c"}
    assert load([same, parted], "hh-rlhf").undecided == 1


def test_max_chars_and_max_rows(load: Callable[..., Any]) -> None:
    rows = [{"prompt": "12345", "chosen": "1" * n, "rejected": "x"} for n in (5, 6, 5, 5)]
    found = load(rows, "pairs", max_chars=10, max_rows=2)
    assert (len(found.pairs), found.long) == (2, 1)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    def expect(name: str, message: str) -> None:
        with pytest.raises(PvMergeError, match=message):
            load_pairs(PairsDataset(path=name))

    empty = tmp_path / "empty.jsonl"
    empty.touch()
    other = tmp_path / "rows.txt"
    other.write_text("hello")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{not json\n")
    expect(str(empty), "empty.jsonl: the file is empty")
    expect(str(other), r"expected a file that ends in json, jsonl, parquet, csv \(or .gz\)")
    expect(str(broken), "broken.jsonl: line 1: not valid JSON")
    expect("./nowhere.jsonl", "nowhere.jsonl: no such file or folder")


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "parquet", "csv", "csv.gz"])
def test_each_kind_of_file_gives_the_same_pairs(tmp_path: Path, ending: str) -> None:
    import datasets

    rows, path = pair_rows(4), tmp_path / f"rows.{ending}"
    table = datasets.Dataset.from_list(rows)
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        table.to_parquet(path)
    else:
        plain = tmp_path / "plain"
        if "csv" in ending:
            table.to_csv(plain, index=False)
        else:
            write_rows(plain, rows)
        opened = gzip.open if ending.endswith(".gz") else open
        with opened(path, "wb") as file:
            file.write(plain.read_bytes())
    found = load_pairs(PairsDataset(path=str(path)))
    assert [pair.chosen for pair in found.pairs] == [row["chosen"] for row in rows]


def test_a_slice_of_a_split(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "rows.jsonl", pair_rows(10)))
    assert len(load_pairs(PairsDataset(path=path, split="train[:7]")).pairs) == 7
    assert len(load_pairs(PairsDataset(path=path, split="train[7:]")).pairs) == 3


def test_the_fingerprint_knows_the_labels(load: Callable[..., Any]) -> None:
    a, b = load(pair_rows(2), "pairs"), load(pair_rows(2), "pairs")
    assert a.fingerprint() == b.fingerprint()
    swapped = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pair_rows(2)
    ]
    assert load(swapped, "pairs").fingerprint() != a.fingerprint()


def test_instruction_rows_and_messages(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Add.", "input": "", "output": " "},
    ]
    path = str(write_rows(tmp_path / "a.jsonl", rows))
    found = load_examples(InstructionDataset(path=path))
    assert [(e.prompt, e.answer) for e in found.examples] == [((("user", "Add.\n\n1 + 1"),), "2")]
    assert found.empty == 1
    talk = [{"messages": [said("user", "Hi"), said("assistant", "Hello")]}]
    path = str(write_rows(tmp_path / "b.jsonl", talk))
    found = load_examples(InstructionDataset(path=path, format="messages"))
    assert (found.examples[0].prompt, found.examples[0].answer) == ((("user", "Hi"),), "Hello")
    bad = [{"messages": [said("assistant", "Hello"), said("user", "Hi")]}]
    path = str(write_rows(tmp_path / "c.jsonl", bad))
    with pytest.raises(PvMergeError, match="must be a dialogue that ends with the assistant's"):
        load_examples(InstructionDataset(path=path, format="messages"))
    with pytest.raises(PvMergeError, match=re.escape("unknown format 'alpaca'; known: instr")):
        load_examples(InstructionDataset(path=path, format="alpaca"))


REAL = {
    "hh-rlhf/harmless-base-test.original.jsonl.gz": ("hh-rlhf", None, 2200),
    "hh-rlhf/helpful-train.jsonl": ("pairs", None, 1060),
    "pku-saferlhf/harmless-train.jsonl": ("pairs", None, 2017),
    "pku-saferlhf/sample-32.json": ("pku-saferlhf", "better_response_id", 32),
    "politeness/instruction-data-with-preference.json": ("instruction", None, 1094),
}


@pytest.mark.parametrize("name", REAL)
def test_real_pairs(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    form, label, least = REAL[name]
    found = load_pairs(PairsDataset(path=str(SHARED / name), format=form, label=label))
    assert len(found.pairs) >= least
    if name.startswith("politeness"):
        assert found.equal == 6


def test_real_labels_of_pku_part_ways() -> None:
    path = SHARED / "pku-saferlhf/sample-32.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    helpful, harmless, first = (
        load_pairs(PairsDataset(path=str(path), format=form, label=label))
        for form, label in (
            ("pku-saferlhf", "better_response_id"),
            ("pku-saferlhf", "safer_response_id"),
            ("safe-first", None),
        )
    )
    rows = json.loads(path.read_text())
    differ = sum(row["better_response_id"] != row["safer_response_id"] for row in rows)
    assert sum(a != b for a, b in zip(helpful.pairs, harmless.pairs, strict=True)) == differ
    both = [row["is_response_0_safe"] and row["is_response_1_safe"] for row in rows]
    for safe, a, b, c in zip(both, helpful.pairs, harmless.pairs, first.pairs, strict=True):
        assert c == (a if safe else b)


@pytest.mark.parametrize("name", ["sft/instruction-data.json", "sft/alpaca_en_demo.json"])
def test_real_instructions(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    assert len(load_examples(InstructionDataset(path=str(SHARED / name))).examples) >= 990


def test_a_format_from_outside(tmp_path, monkeypatch):
    def ranked(row, label):
        """prompt and answers, the best first."""
        return Pair((("user", row["prompt"]),), row["answers"][0], row["answers"][-1])

    monkeypatch.setitem(FORMATS, "ranked", ranked)
    path = write_rows(tmp_path / "r.jsonl", [{"prompt": "Hi", "answers": ["a", "b", "c"]}])
    (pair,) = load_pairs(PairsDataset(path=str(path), format="ranked")).pairs
    assert (pair.chosen, pair.rejected) == ("a", "c")
