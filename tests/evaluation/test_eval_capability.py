import json
import math
import sys

import pytest
import torch

from pv_merge.data.questions import read_questions
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import NoParts
from pv_merge.evaluation.measures.choices import ChoicesMeasure
from pv_merge.evaluation.measures.harness import HarnessMeasure
from pv_merge.evaluation.measures.perplexity import WINDOW, PerplexityMeasure
from pv_merge.evaluation.measures.registry import build_measures

from eval_tiny import subject
from train_tiny import SHARED

TEXT = "It was a dark and stormy night; the rain fell in torrents. " * 12


def measured(measure, loaded):
    return measure.measure(loaded, NoParts(), lambda count: None)


def test_perplexity_is_that_of_transformers_own_loss(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    loaded = subject(tmp_path)
    measure = PerplexityMeasure("perplexity", tmp_path / "text.txt")
    record = measured(measure, loaded)
    tokens = loaded.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    windows = [tokens[i : i + WINDOW] for i in range(0, len(tokens) - WINDOW + 1, WINDOW)]
    assert len(record["nats"]) == len(windows) == 2
    losses = []
    with torch.no_grad():
        for window in windows:
            ids = torch.tensor([window])
            losses.append(float(loaded.model(ids, labels=ids).loss))
    figures = measure.estimates(record, None)
    assert figures["perplexity"].value == pytest.approx(math.exp(sum(losses) / 2), rel=1e-4)
    assert figures["perplexity.nats"].value == pytest.approx(sum(losses) / 2, abs=1e-4)
    assert measure.better()["perplexity"] == -1


QUESTION = {
    "answerKey": "B",
    "question": {
        "stem": "Where is it?",
        "choices": [
            {"label": label, "text": text} for label, text in zip("ABCDE", "vwxyz", strict=True)
        ],
    },
}
CONTEXT = "Question: Where is it?\nA. v\nB. w\nC. x\nD. y\nE. z\nAnswer:"


def test_choices_are_scored_letter_by_letter(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n")
    loaded = subject(tmp_path)
    measure = ChoicesMeasure("commonsenseqa", path)
    assert measure.questions[0].context() == CONTEXT
    record = measured(measure, loaded)
    for letter, found in zip("ABCDE", record["logps"][0], strict=True):
        ids = loaded.tokenizer(f"{CONTEXT} {letter}")["input_ids"]
        with torch.no_grad():
            table = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(loaded.tokenizer(CONTEXT)["input_ids"])
        expected = sum(float(table[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert found == pytest.approx(expected, abs=1e-4)
    assert measure.items({"logps": [[-3, -1, -2, -4, -5]]}, None) == {"commonsenseqa": [1.0]}
    assert measure.items({"logps": [[-1, -3, -2, -4, -5]]}, None) == {"commonsenseqa": [0.0]}


def test_the_hubs_form_is_read_too(tmp_path):
    row = {
        "question": "Where is it?",
        "choices": {"label": list("ABCDE"), "text": list("vwxyz")},
        "answerKey": "B",
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    question = read_questions(tmp_path / "q.jsonl")[0]
    assert (question.context(), question.answer) == (CONTEXT, 1)


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared/data")
def test_published_questions():
    assert len(read_questions(SHARED / "capability/commonsenseqa-dev-300.jsonl")) == 300


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"prompt": "x"}\n', "row 1 is not of CommonsenseQA's form"),
        ("q.jsonl", "", "holds no questions"),
        ("t.txt", " \n", "the file is empty"),
        ("t.bin", "x", "expected a .txt"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(PvMergeError) as error:
        build_measures(capability=[str(tmp_path / name)])
    assert message in error.value.message


def test_missing_file_and_missing_library(monkeypatch):
    with pytest.raises(PvMergeError, match="no such file"):
        build_measures(capability=["none.txt"])
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(PvMergeError, match="needs lm-evaluation-harness: pip install"):
        build_measures(capability=["commonsense_qa"])


def test_a_task_of_the_harness_is_read_from_its_results(monkeypatch):
    from pv_merge.evaluation.measures import harness

    monkeypatch.setattr(harness, "task_names", lambda: ["commonsense_qa", "hellaswag"])
    with pytest.raises(PvMergeError, match=r"no such file or task; did you mean commonsense_qa\?"):
        HarnessMeasure("x", "commonsenseqa")
    measure = HarnessMeasure("csqa", "commonsense_qa")
    record = {"results": {"acc,none": 0.5, "acc_stderr,none": 0.05}, "n": 100}
    found = measure.estimates(record, None)["csqa"]
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.402, 0.598))


def test_options_that_need_another():
    with pytest.raises(PvMergeError, match="give --reward-prompts FILE"):
        build_measures(reward_model=["some/model"])
    with pytest.raises(PvMergeError, match="give --judge-trait or --refusal too"):
        build_measures(judge_url="http://localhost:8000/v1")
