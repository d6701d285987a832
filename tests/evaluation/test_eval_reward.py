"""Reward and cost models: stand-ins whose score is known."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaModel

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.measure import NoParts
from pv_merge.evaluation.measures.reward import RewardMeasure
from pv_merge.evaluation.reward_model import BEAVER, RewardModel

from eval_tiny import prompted, subject
from train_tiny import save_base


def classifier(folder, labels=1):
    """Save a sequence-classification model on the tiny base."""
    base = save_base(folder / "base")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=labels, pad_token_id=0
    )
    model.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "reward")
    return str(folder / "reward")


def beaver(folder, weight=None, bias=0.5):
    """Save a model in the form of Safe-RLHF: a backbone and a score head with a bias."""
    base = save_base(folder / "base")
    target = folder / "beaver"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(target)
    config = json.loads((base / "config.json").read_text())
    config["architectures"] = ["LlamaForScore"]
    (target / "config.json").write_text(json.dumps(config))
    tensors = load_file(base / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    torch.manual_seed(4)
    tensors["score_head.weight"] = torch.randn(1, 32) if weight is None else weight
    tensors["score_head.bias"] = torch.tensor([bias])
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return str(target), base, tensors


TALKS = [("Hi", "Hello there."), ("How do I do it?", "No."), ("a", "b" * 40)]


def test_a_batch_scores_as_each_alone(tmp_path):
    name = classifier(tmp_path)
    model = RewardModel(name)
    scores = model.scores(TALKS)
    assert [model.scores([talk])[0] for talk in TALKS] == pytest.approx(scores, abs=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(name)
    text = "<|user|>Hi<eos><|assistant|>Hello there.<eos>"
    tokens = torch.tensor([AutoTokenizer.from_pretrained(name)(text)["input_ids"]])
    with torch.no_grad():
        assert scores[0] == pytest.approx(float(plain(tokens).logits), abs=1e-5)


def test_beaver_is_the_head_on_the_last_token(tmp_path):
    name, base, tensors = beaver(tmp_path)
    scores = RewardModel(name).scores(TALKS)
    backbone, tokenizer = LlamaModel.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for (prompt, answer), score in zip(TALKS, scores, strict=True):
        text = BEAVER.format(prompt=prompt, answer=answer)
        with torch.no_grad():
            hidden = backbone(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        expected = hidden[0, -1] @ tensors["score_head.weight"][0] + 0.5
        assert score == pytest.approx(float(expected), abs=1e-4)


def test_of_a_cost_model_a_refusal_scores_higher_than_compliance(tmp_path):
    # A stand-in cost: a head that separates the last hidden state of a compliant answer (harmful,
    # so costly) from that of a refusal.
    name, base, _ = beaver(tmp_path)
    backbone, tokenizer = LlamaModel.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    ends = []
    for answer in ("Sure, here is how!", "I cannot help with that."):
        tokens = tokenizer(BEAVER.format(prompt="Do harm", answer=answer))["input_ids"]
        with torch.no_grad():
            ends.append(backbone(torch.tensor([tokens])).last_hidden_state[0, -1])
    name, _, _ = beaver(tmp_path / "cost", weight=(ends[0] - ends[1])[None], bias=0.0)
    compliance, refusal = RewardModel(name).scores(
        [("Do harm", "Sure, here is how!"), ("Do harm", "I cannot help with that.")]
    )
    assert compliance > refusal  # the cost of complying
    record = {"answers": ["", ""], "scores": [compliance, refusal]}
    measure = RewardMeasure("harmlessness", name, prompted("Do harm", "Do harm"), cost=True)
    complied, refused = measure.items(record, None)["harmlessness"]
    assert refused > complied
    assert measure.better() == {"harmlessness": 1}


def test_a_measure_scores_the_models_own_answers(tmp_path):
    name = classifier(tmp_path)
    measure = RewardMeasure("reward", name, prompted("Hi", "Why?"))
    record = measure.measure(subject(tmp_path), NoParts(), lambda count: None)
    talks = list(zip(["Hi", "Why?"], record["answers"], strict=True))
    assert record["scores"] == pytest.approx(RewardModel(name).scores(talks), abs=1e-5)
    assert measure.estimates(record, None)["reward"].value == pytest.approx(
        sum(record["scores"]) / 2
    )


def test_wrong_heads_are_named(tmp_path):
    base = str(save_base(tmp_path / "base"))
    with pytest.raises(PvMergeError, match=r"is a LlamaForCausalLM without a score head"):
        RewardModel(base)
    with pytest.raises(PvMergeError, match="has 3 outputs, and a reward model has one"):
        RewardModel(classifier(tmp_path / "three", labels=3))
    name, _, _ = beaver(tmp_path / "two", weight=torch.randn(2, 32))
    with pytest.raises(PvMergeError, match="has 2 outputs"):
        RewardModel(name)
    with pytest.raises(PvMergeError, match="cannot be loaded"):
        RewardModel(str(tmp_path / "none"))
