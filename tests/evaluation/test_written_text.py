"""What models write, measured: length, loops, variety, traits; one generation for all of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import pv_merge
from pv_merge.cli import main
from pv_merge.data.prompts import Prompt
from pv_merge.data.wording import distinct, loops, word_count
from pv_merge.errors import PvMergeError
from pv_merge.evaluation import prompted as prompted_module
from pv_merge.evaluation.measure import NoParts
from pv_merge.evaluation.measures.registry import build_measures
from pv_merge.evaluation.measures.written import WrittenMeasure
from pv_merge.evaluation.statistics import change, paired_difference
from pv_merge.live.generation import Answering, generate, greedy

from eval_tiny import Kept, make_recipe, prompted, subject


def test_words_loops_and_variety_by_hand() -> None:
    assert word_count("It's a cat, isn't it? Yes.") == 6
    assert word_count("猫が好き") == 4
    assert not loops("I like it so. I like it so.")  # twice is no loop
    assert loops("I like it so. i LIKE it, so! I like it so.")
    assert not loops("no no no no no")  # "no no no no" twice
    assert loops("no no no no no no")
    assert distinct("a b a b", 1) == 0.5
    assert distinct("a b a b", 2) == pytest.approx(2 / 3)  # a b, b a, a b
    assert distinct("one", 2) is None


def test_figures_by_hand() -> None:
    measure = WrittenMeasure("w", prompted("1", "2", "3", "4"))
    record = {
        "answers": ["one two", "", "so it goes on so it goes on so it goes on", None],
        "tokens": [2, 0, 12, None],
        "cut": [0, 0, 1, None],
    }
    found = {name: figure.value for name, figure in measure.estimates(record, None).items()}
    assert found == {
        "w_words": pytest.approx(14 / 3),
        "w_loops": pytest.approx(1 / 3),
        "w.tokens": pytest.approx(14 / 3),
        "w.cut": pytest.approx(1 / 3),
        "w.empty": pytest.approx(1 / 3),
        "w.distinct_1": pytest.approx((1 + 4 / 12) / 2),  # nothing is known of the empty one
        "w.distinct_2": pytest.approx((1 + 4 / 11) / 2),
        "w.too_long": 0.25,
    }
    assert set(found) == set(measure.labels())


def test_what_one_side_does_not_know_is_left_out_of_a_pair() -> None:
    found = paired_difference([1.0, math.nan, 5.0], [0.0, 0.0, 2.0])
    assert (found.value, found.n) == (2.0, 2)
    assert change([math.nan, math.nan], [1.0, 1.0]) is None
    assert change([1.0, 2.0], [1.0]) is None


def test_sampled_answers_depend_on_seed_and_prompt_alone(tmp_path: Path) -> None:
    loaded, prompts = subject(tmp_path), ["a", "What is this, please?", "Why?"]
    how = Answering(10, temperature=1.0, seed=3)

    def texts(asked: list[str], how: Answering, size: int = 16) -> list[str]:
        return [answer.text for answer in generate(loaded, asked, how, size) if answer]

    together = texts(prompts, how)
    assert [texts([prompt], how)[0] for prompt in prompts] == together
    assert texts(prompts, how, 2) == together
    assert texts(prompts, Answering(10, temperature=1.0, seed=4)) != together
    assert texts(prompts, Answering(10, temperature=1e-4)) == greedy(loaded, prompts, 10)


def test_noise_on_logits_samples_the_softmax(tmp_path: Path) -> None:
    from pv_merge.live.generation import _Noise

    logits = torch.tensor([[2.0, 0.0, 1.0]])
    counts = torch.zeros(3)
    noise = _Noise(["x"], Answering(1, temperature=0.5, seed=1))
    for _ in range(4000):
        counts[noise(None, logits).argmax()] += 1
    assert torch.allclose(counts / 4000, torch.softmax(logits[0] / 0.5, 0), atol=0.025)


def test_where_an_answer_ends_is_known(tmp_path: Path) -> None:
    loaded = subject(tmp_path)
    (whole,) = generate(loaded, ["Why?"], Answering(12))
    assert whole is not None and whole.cut and whole.tokens == 12
    ids = loaded.tokenizer("Why?")  # the tokenizer is the one that counts
    assert ids["input_ids"]
    loaded.model.generation_config.eos_token_id = list(range(loaded.model.config.vocab_size))
    (ended,) = generate(loaded, ["Why?"], Answering(12))
    assert ended is not None and (ended.text, ended.tokens, ended.cut) == ("", 0, False)


def test_prompts_that_fill_the_context_are_counted(tmp_path: Path) -> None:
    loaded = subject(tmp_path)
    limit = loaded.max_length
    assert limit is not None
    long = "word " * limit
    measure = WrittenMeasure("w", prompted("Why?", long))
    record = measure.measure(loaded, Kept(), lambda count: None)
    assert record["answers"][1] is None and record["answers"][0] is not None
    assert measure.estimates(record, None)["w.too_long"].value == 0.5
    with pytest.raises(PvMergeError, match=f"all 1 prompts fill the {limit} tokens"):
        WrittenMeasure("w", prompted(long)).measure(loaded, NoParts(), lambda count: None)


def test_measures_of_the_same_prompts_share_one_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "p.csv").write_text("prompt,label\nWhy?,safe\nHow to harm?,unsafe\nHi,safe\n")
    asked: list[str] = []

    def counted(subject: Any, prompts: Any, *rest: Any) -> Any:
        asked.extend(prompts)
        return generate(subject, prompts, *rest)

    monkeypatch.setattr(prompted_module, "generate", counted)
    said = {"answers": [str(tmp_path / "p.csv")], "refusal": [str(tmp_path / "p.csv")]}
    measures = build_measures(**said, max_new_tokens=5)
    found = pv_merge.evaluate(recipe, tmp_path / "r.json", measures, etas={"brief": 0.0})
    assert sorted(asked) == sorted(2 * ["Why?", "How to harm?", "Hi"])  # base and mix, once each
    assert {"written_words", "written_loops", "refusal_safe"} <= set(found.figures)
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines if '"record"' in line]
    point = [r for r in records if r["point"]["polite"]]
    written, refused = (r["record"]["answers"] for r in point)
    assert written == refused


def test_the_change_from_the_base_is_paired(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "p.txt").write_text("Why?\nHow?\nHi\nWhat is it?\n")
    result = CliRunner().invoke(
        main,
        [
            *("evaluate", str(recipe), "-o", str(tmp_path / "r.json")),
            *("--answers", str(tmp_path / "p.txt"), "--max-new-tokens", "5"),
            *("--temperature", "0.8", "--seed", "7"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "change, paired" in result.output
    saved = json.loads((tmp_path / "r.json").read_text())
    assert "sampled at temperature 0.8, seed 7" in saved["labels"]["written_words"]
    after, before = (saved[key]["written_words"]["value"] for key in ("figures", "base_figures"))
    moved = saved["changes"]["written_words"]
    assert moved["value"] == pytest.approx(after - before, abs=1e-5)
    assert moved["low"] <= moved["value"] <= moved["high"]


def test_a_reward_model_may_read_the_answers_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Why?\n")
    with pytest.raises(PvMergeError, match="give --reward-prompts FILE or --answers FILE"):
        build_measures(reward_model=["some/model"])
    _, reward = build_measures(reward_model=["some/model"], answers=[f"a={tmp_path / 'p.txt'}"])
    assert reward.prompted.prompts == (Prompt("Why?"),)
