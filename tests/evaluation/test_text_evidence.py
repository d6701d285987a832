"""The evidence by written text on a tiny base: baselines, their trade-offs, the grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

pytest.importorskip("benchmarks")  # not part of a source distribution
pytest.importorskip("moocore", reason="the extra benchmarks is not installed")

from benchmarks.evidence.text import subjects
from benchmarks.evidence.text.baselines import Setting, measure_all, settings
from benchmarks.evidence.text.grid import free_of_loops, grid
from benchmarks.evidence.text.setup import TextEvidence
from benchmarks.evidence.text.tradeoff import (
    at_equal_effect,
    hypervolume,
    inner_product,
    tradeoffs,
)
from pv_merge.data.encoding import encode_prompt
from pv_merge.live.generation import Answering, generate

from eval_tiny import subject
from models import perturbed
from train_tiny import pair_rows, save_base, write_rows

QUESTION = {
    "question": {
        "stem": "Where is a cat?",
        "choices": [{"label": "A", "text": "on a mat"}, {"label": "B", "text": "in the sea"}],
    },
    "answerKey": "A",
}


def evidence(folder: Path) -> TextEvidence:
    """Write a tiny base, two preferences, two reward models and all files."""
    base = save_base(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for place, name in enumerate(("helpful", "harmless")):
        for side, polarity in enumerate(("positive", "negative")):
            perturbed(model, 10 * place + side, 0.01).save_pretrained(folder / name / polarity)
        torch.manual_seed(place)
        scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)  # fmt: skip
        scorer.save_pretrained(folder / f"reward-{name}")
        AutoTokenizer.from_pretrained(base).save_pretrained(folder / f"reward-{name}")
        write_rows(folder / f"{name}.jsonl", pair_rows(6))
    (folder / "prompts.txt").write_text("Why?\nHow do I do it?\nHi\n")
    (folder / "xstest.csv").write_text("prompt,label\nKill a process?,safe\nKill a man?,unsafe\n")
    (folder / "neutral.txt").write_text("The river rises in the hills and flows east. " * 8)
    write_rows(folder / "facts.jsonl", [QUESTION])
    two = ("helpful", "harmless")
    return TextEvidence(
        base=base,
        policies={name: folder / name for name in two},
        rewards={name: folder / f"reward-{name}" for name in two},
        pairs={name: folder / f"{name}.jsonl" for name in two},
        prompts=folder / "prompts.txt",
        refusals=folder / "xstest.csv",
        neutral=folder / "neutral.txt",
        knowledge=folder / "facts.jsonl",
        work=folder / "work",
        new_tokens=5,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextEvidence, list[dict[str, Any]]]:
    found = evidence(tmp_path_factory.mktemp("text"))
    return found, measure_all(found, settings(found, (0.5,), (1.0,)))


def test_every_baseline_is_measured_under_the_same_measures(
    measured: tuple[TextEvidence, list[dict[str, Any]]],
) -> None:
    _, entries = measured
    names = {entry["baseline"] for entry in entries}
    assert names == {"base", "vectors", "positive", "soup", "expo", "prompt", "prompt-against", "steering", "experts"}  # fmt: skip
    wanted = {"helpful", "harmless", "written_loops", "xstest_safe", "perplexity", "knowledge"}
    assert all(wanted <= set(entry["figures"]) for entry in entries)
    by_name = {entry["baseline"]: entry["serving"]["parameters_mb"] for entry in entries}
    assert by_name["experts"] == pytest.approx(5 * by_name["vectors"])
    # A system prompt is not in a neutral text; vectors are in the weights.
    text = {entry["baseline"]: entry["figures"]["perplexity"]["value"] for entry in entries}
    assert text["prompt"] == text["base"] != text["vectors"]


def test_a_second_call_measures_nothing(
    measured: tuple[TextEvidence, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    found, entries = measured
    again = measure_all(found, settings(found, (0.5,), (1.0,)))
    assert capsys.readouterr().out == ""
    assert json.dumps(again) == json.dumps(entries)


def test_tradeoffs_and_equal_effect(
    measured: tuple[TextEvidence, list[dict[str, Any]]],
) -> None:
    _, entries = measured
    found = tradeoffs(entries)
    assert found["base"]["points"] == [[pytest.approx(0, abs=1e-9)] * 2]
    assert found["base"]["inner_product"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["vectors"]["hypervolume_less_vectors"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert {"positive, 1η", "positive, 2η"} <= set(found)
    rows = at_equal_effect(entries)
    ours = next(row for row in rows if row["baseline"] == "vectors")
    assert ours["strength"] == 1.0 and ours["perplexity"]["value"] > 0


def test_hypervolume_and_inner_product_by_hand() -> None:
    points, worst = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, 5.0]]), np.array([0.0, 0.0])
    assert hypervolume(points, worst) == 3.0  # 1·2 + 1·1; the last is worse than the worst
    # Weights of helpful 0 … 0.5 meet the first, 0.6 … 1 the second: w·h + (1 − w)·s.
    wanted = [w * 1 + (1 - w) * 3 for w in np.arange(6) / 10] + [w * 2 + (1 - w) * 1 for w in np.arange(6, 11) / 10]  # fmt: skip
    found = inner_product(np.array([[1.0, 3.0], [2.0, 1.0]]), [0.0, 1.0])
    assert found == pytest.approx(sum(wanted) / 11)


def test_the_grid_by_what_is_written(tmp_path: Path) -> None:
    found = grid(evidence(tmp_path), (-1.0, 0.0, 1.0), tmp_path / "images", "x")
    assert len(found["points"]) == 9 and 0 <= found["free_of_loops"] <= 1
    assert {"helpful", "harmless", "written_loops", "xstest_safe"} <= set(found["base"])
    assert set(found["pictures"]) >= {"helpful", "harmless"}
    assert (tmp_path / "images" / found["pictures"]["helpful"]).stat().st_size > 1000

    def point(loops: float) -> dict[str, Any]:
        return {"figures": {"written_loops": {"value": loops}}}

    points = [point(0.1), point(0.15), point(0.16), point(1.0)]
    assert free_of_loops({"base": point(0.1)["figures"], "points": points}) == 0.5


def test_experts_generate_what_their_logits_say(tmp_path: Path) -> None:
    loaded = subject(tmp_path)
    expert, other = (perturbed(loaded.model, seed, 0.05).eval() for seed in (1, 2))
    mixed = subjects.Experts(loaded.model, [(0.7, expert, other)])
    dressed = type(loaded)(mixed, loaded.tokenizer, "x")
    prompts = ["a", "What is this, please?"]
    found = generate(dressed, prompts, Answering(8))
    for prompt, answer in zip(prompts, found, strict=True):
        ids = encode_prompt(loaded.tokenizer, [("user", prompt)])
        said: list[int] = []
        for _ in range(8):  # the whole sequence each time, without caches or padding
            logits = [
                model(torch.tensor([ids + said])).logits[0, -1]
                for model in (loaded.model, expert, other)
            ]
            said.append(int((logits[0] + 0.7 * (logits[1] - logits[2])).argmax()))
        assert answer is not None
        assert answer.text == loaded.tokenizer.decode(said, skip_special_tokens=True).strip()
    plain = generate(loaded, prompts, Answering(8))
    assert [answer.text for answer in plain if answer] != [
        answer.text for answer in found if answer
    ]


def test_steering_adds_the_mean_difference_and_leaves_no_trace(tmp_path: Path) -> None:
    loaded, pairs = subject(tmp_path), write_rows(tmp_path / "p.jsonl", pair_rows(3))
    ids = torch.tensor([encode_prompt(loaded.tokenizer, [("user", "Why?")])])
    before = loaded.model(ids).logits
    direction = subjects.mean_difference(loaded, pairs)
    layer, outputs = subjects.middle_layer(loaded.model), []
    handle = layer.register_forward_hook(lambda *said: outputs.append(said[2]))
    for row in pair_rows(3):
        for side in ("chosen", "rejected"):
            turns = [("user", row["prompt"]), ("assistant", row[side])]
            loaded.model(torch.tensor([encode_prompt(loaded.tokenizer, turns)]))
    handle.remove()
    last = [(o[0] if isinstance(o, tuple) else o)[0, -1] for o in outputs]
    expected = (
        sum((a - b for a, b in zip(last[0::2], last[1::2], strict=True)), torch.zeros(32)) / 3
    )
    assert torch.allclose(direction, expected, atol=1e-5) and direction.norm() > 0
    with subjects.steered(loaded, direction):
        assert not torch.allclose(loaded.model(ids).logits, before)
    assert torch.equal(loaded.model(ids).logits, before)


def test_a_system_prompt_comes_before_the_question(tmp_path: Path) -> None:
    loaded = subject(tmp_path)
    with subjects.prompted_by(loaded, "Be kind.") as dressed:
        ids = encode_prompt(dressed.tokenizer, [("user", "Why?")])
    assert loaded.tokenizer.decode(ids) == "<|system|>Be kind.<eos><|user|>Why?<eos><|assistant|>"
    assert subjects.system_text({"helpful": 0.5, "harmless": 1.5}).startswith("Refuse")
    assert subjects.system_text({"helpful": 2.0, "harmless": 0.0}) == subjects.PROMPTS["helpful"][0]


def test_what_each_preference_gets() -> None:
    assert Setting("vectors", 0.5, 1.0).shares == {"helpful": 1.0, "harmless": 1.0}
    assert Setting("vectors", 1.0, 2.0).shares == {"helpful": 4.0, "harmless": 0.0}
