import json

import pytest
from test_eval_logprobs import naive

from pv_merge.data.encoding import encode_pair
from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import NoParts
from pv_merge.evaluation.measures.pairs import (
    PairScores,
    accuracies,
    margins,
    normalised_margins,
    read_pairs,
    reward_margins,
)

from eval_tiny import subject
from train_tiny import pair_rows, write_rows

#                    chosen        rejected       tokens of both
SCORES = PairScores([-4.0, -9.0], [-6.0, -8.0], [4, 9], [2, 2])
BASE = PairScores([-5.0, -9.0], [-5.0, -9.0], [4, 9], [2, 2])


def test_formulas_by_hand():
    assert margins(SCORES) == [2.0, -1.0]
    assert normalised_margins(SCORES) == [-1 - -3, -1 - -4]
    assert accuracies(margins(SCORES)) == [1.0, 0.0]
    assert accuracies([0.0]) == [0.5]
    # 0.1 · ((−4 − −6) − (−5 − −5)) = 0.2; 0.1 · ((−9 − −8) − (−9 − −9)) = −0.1
    assert reward_margins(SCORES, BASE, beta=0.1) == pytest.approx([0.2, -0.1])
    assert reward_margins(BASE, BASE) == [0.0, 0.0]


def test_a_file_measured_and_compared_with_its_base(tmp_path):
    loaded = subject(tmp_path)
    measure = read_pairs(f"polite={write_rows(tmp_path / 'pairs.jsonl', pair_rows(6))}")
    heard = []
    record = measure.measure(loaded, NoParts(), heard.append)
    assert json.loads(json.dumps(record)) == record
    assert sum(heard) == measure.size == 12
    chosen, rejected = encode_pair(loaded.tokenizer, measure.pairs[4])
    assert record["chosen"][4] == pytest.approx(naive(loaded.model, chosen), abs=1e-3)
    assert record["rejected"][4] == pytest.approx(naive(loaded.model, rejected), abs=1e-3)
    assert record["chosen_tokens"][4] == len(chosen.tokens) - chosen.start
    figures = measure.estimates(record, record)
    assert list(figures) == list(measure.labels())
    assert figures["polite.reward_margin"].value == 0
    assert "polite.reward_margin" not in measure.estimates(record, None)


def test_prompts_may_be_messages_and_other_formats(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "Hello.", "rejected": "What?"},
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "Good day.", "rejected": "No."},
    ]
    measure = read_pairs(f"x={write_rows(tmp_path / 'm.jsonl', rows)}")
    assert measure.groups == [(("user", "Hi"),)] * 2  # one prompt, so one group
    rows = [
        {"chosen": f"\n\nHuman: a\n\nAssistant: {i}", "rejected": "\n\nHuman: a\n\nAssistant: -"}
        for i in range(2)
    ]
    measure = read_pairs(f"x={write_rows(tmp_path / 'hh.jsonl', rows)}:hh-rlhf")
    assert measure.pairs[1].chosen == "1"
    assert len(read_pairs(f"x={tmp_path / 'hh.jsonl'}:hh-rlhf", limit=1).pairs) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{file}", "expected NAME=FILE"),
        ("polite={folder}/none.jsonl", "none.jsonl: no such file"),
        ("polite={file}:pears", "unknown format 'pears'; did you mean pairs?"),
        ("polite={bad}", "row 1 is not of the format pairs: rejected is missing"),
    ],
)
def test_bad_input_is_one_line(tmp_path, text, message):
    write_rows(tmp_path / "good.jsonl", pair_rows(2))
    write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "chosen": "b"}])
    places = {"file": tmp_path / "good.jsonl", "bad": tmp_path / "bad.jsonl", "folder": tmp_path}
    with pytest.raises(PvMergeError) as error:
        read_pairs(text.format(**places))
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_a_prompt_longer_than_the_model_is_named(tmp_path):
    loaded = subject(tmp_path)
    rows = [*pair_rows(1), {"prompt": "x" * 600, "chosen": "a", "rejected": "b"}]
    measure = read_pairs(f"x={write_rows(tmp_path / 'pairs.jsonl', rows)}")
    with pytest.raises(PvMergeError, match=r"pair 2 leaves no token to score.*512 tokens"):
        measure.measure(loaded, NoParts(), lambda count: None)
