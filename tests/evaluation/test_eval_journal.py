import pytest

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.journal import Journal

SUBJECT = {"recipe": "abc", "weights": {"base": "1"}}


def opened(path, **subject):
    return Journal(path, {**SUBJECT, **subject}, {"versions": {}})


def test_records_are_there_when_opened_again(tmp_path):
    path = tmp_path / "results.jsonl"
    journal = opened(path)
    journal.declare("polite", {"data": "x"})
    journal.put({"a": 0, "b": 1.0}, "polite", {"value": 3}, 0.5, {})
    journal.parts({"a": 0}, "refusal").put("answers 0", ["yes"])
    again = opened(path)
    assert again.get({"b": 1, "a": -0.0}, "polite") == {"value": 3}  # order and −0 do not matter
    assert again.get({"a": 0.5, "b": 1}, "polite") is None
    assert again.parts({"a": 0}, "refusal").all() == {"answers 0": ["yes"]}
    again.declare("polite", {"data": "x"})


def test_a_line_cut_by_a_kill_is_dropped_and_the_rest_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    opened(path).put({"a": 1}, "polite", {"value": 1}, 0.5, {})
    with path.open("a") as file:
        file.write('{"kind": "record", "point": {"a": 2}, "mea')
    journal = opened(path)
    assert journal.get({"a": 1}, "polite") == {"value": 1}
    journal.put({"a": 2}, "polite", {"value": 2}, 0.5, {})
    assert opened(path).get({"a": 2}, "polite") == {"value": 2}


def test_another_model_or_other_data_is_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    opened(path).declare("polite", {"data": "x"})
    with pytest.raises(PvMergeError, match=r"begun with another model \(recipe changed\)"):
        opened(path, recipe="other")
    with pytest.raises(PvMergeError, match="polite was measured with other data or settings"):
        opened(path).declare("polite", {"data": "y"})


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(PvMergeError, match="its first line is no header"):
        opened(path)
    path.write_text('{"kind": "header"\n{}\n')
    with pytest.raises(PvMergeError, match="line 1 is not JSON"):
        opened(path)
