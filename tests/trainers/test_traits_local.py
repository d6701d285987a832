"""A model in this process as writer and judge, and the judges without an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pv_merge.asking.asker import Asker
from pv_merge.asking.exchange import Failure, Reply, Request
from pv_merge.asking.replies import ReplyCache
from pv_merge.asking.settings import ModelSettings
from pv_merge.errors import PvMergeError
from trainers.traits.judges import ModelJudge, RewardJudge, RuleJudge, Written
from trainers.traits.local import LocalModel
from trainers.traits.models import make_judge
from trainers.traits.run import write_pairs
from trainers.traits.trait import TraitSettings

from train_tiny import save_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))


def request(text: str, temperature: float = 0.0, seed: int = 0) -> Request:
    return Request((("system", "Hm."), ("user", text)), 12, temperature, seed)


def asker(base: Path, folder: Path, **settings: Any) -> Asker:
    said = ModelSettings.model_validate({"model": str(base), **settings})
    return Asker(LocalModel(said, "writer"), ReplyCache(folder / "c.sqlite"))


def test_batches_give_what_transformers_gives_alone(base: Path, tmp_path: Path) -> None:
    texts = ["Hello", "A much longer message than the other", "?"]
    replies = asker(base, tmp_path, concurrency=2).ask([request(text) for text in texts])
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for text, reply in zip(texts, replies, strict=True):
        turns = [{"role": "system", "content": "Hm."}, {"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        made = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert isinstance(reply, Reply)
        assert reply.text == tokenizer.decode(made, skip_special_tokens=True).strip()
        assert reply.tokens_in == ids.shape[1]
        assert (reply.cut, reply.tokens_out) == (len(made) == 12 and made[-1] != 1, len(made))


def test_sampling_is_seeded_and_leaves_the_generator_as_it_was(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = asker(base, tmp_path / "a").ask([request("Hello", 1.0, seed=3)])
    assert torch.equal(torch.rand(3), expected)
    second = asker(base, tmp_path / "b").ask([request("Hello", 1.0, seed=3)])
    third = asker(base, tmp_path / "c").ask([request("Hello", 1.0, seed=4)])
    said = [answers[0].text for answers in (first, second, third) if isinstance(answers[0], Reply)]
    assert said[0] == said[1] != said[2]


def test_a_prompt_that_fills_the_context_fails_alone(base: Path, tmp_path: Path) -> None:
    long, short = asker(base, tmp_path).ask([request("x" * 600), request("x")])
    assert isinstance(long, Failure) and long.too_long and "the context has 512" in long.reason
    assert isinstance(short, Reply)


def test_the_same_weights_elsewhere_have_the_same_replies(base: Path, tmp_path: Path) -> None:
    asker(base, tmp_path).ask([request("Hello")])
    copy = save_base(tmp_path / "copy")
    again = asker(copy, tmp_path)
    again.ask([request("Hello")])
    assert (again.cost.cached, again.cost.requests) == (1, 0)


def test_a_template_without_a_system_message_is_one_line(base: Path, tmp_path: Path) -> None:
    strict = save_base(tmp_path / "strict")
    tokenizer = AutoTokenizer.from_pretrained(strict)
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    tokenizer.save_pretrained(strict)
    with pytest.raises(PvMergeError, match=r"no system.*set system_role: false"):
        asker(strict, tmp_path).ask([request("Hello")])
    reply = asker(strict, tmp_path, system_role=False).ask([request("Hello")])[0]
    assert isinstance(reply, Reply)


def trait(base: Path, folder: Path, **changes: Any) -> TraitSettings:
    file = folder / "prompts.txt"
    file.write_text(
        "Why is the sky blue?\nHow do I boil an egg?\nWho wrote this book about whales?\n"
    )
    data: dict[str, Any] = {
        "preference": "kind",
        "description": "answers kindly and with care",
        "writer": {"model": str(base)},
        "prompts": {"file": str(file)},
        "pairs": 2,
    }
    return TraitSettings.model_validate(data | changes)


def test_noise_is_rejected_with_counts_and_kept_as_candidates(base: Path, tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match=r"no pair is good enough \(0 of 3 kept"):
        write_pairs(trait(base, tmp_path), tmp_path / "p.jsonl")
    assert len((tmp_path / "p-candidates.jsonl").read_text().splitlines()) == 3


def test_who_judges_where_the_trait_does_not_say(base: Path, tmp_path: Path) -> None:
    local = trait(base, tmp_path)
    writer = asker(base, tmp_path)
    assert isinstance(make_judge(local, writer, ReplyCache()), RuleJudge)
    remote = trait(base, tmp_path, writer={"url": "http://127.0.0.1:9/v1", "model": "m"})
    judge = make_judge(remote, writer, ReplyCache())
    assert isinstance(judge, ModelJudge) and judge.name == "m"


def test_a_judge_that_is_the_writer_shares_its_weights(base: Path, tmp_path: Path) -> None:
    settings = trait(base, tmp_path, judge={"model": str(base)})
    writer = asker(base, tmp_path)
    judge = make_judge(settings, writer, ReplyCache())
    assert isinstance(judge, ModelJudge)
    pair = Written((("user", "Why?"),), "Because it is so.", "No idea, go away.")
    verdict = judge.judge([pair], lambda: None)[0]
    assert isinstance(verdict, Failure) and verdict.reason == "too long for the judge's context"
    mine, theirs = judge._asker.backend, writer.backend
    assert isinstance(mine, LocalModel) and isinstance(theirs, LocalModel)
    assert mine._model is theirs._model is not None


def test_a_reward_model_compares_the_two_answers(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = make_judge(
        trait(base, tmp_path, judge={"reward_model": "x"}), asker(base, tmp_path), ReplyCache()
    )
    assert isinstance(judge, RewardJudge) and judge.note is not None

    class Scorer:
        def scores(self, conversations: list[tuple[str, str]]) -> list[float]:
            return [float(len(answer)) / 10 for _, answer in conversations]

    judge._model = Scorer()
    pair = Written((("user", "Why?"),), "Because it is so, you see.", "It is so, surely.")
    verdict = judge.judge([pair], lambda: None)[0]
    assert not isinstance(verdict, Failure)
    odds = torch.sigmoid(torch.tensor((26 - 17) / 10)).item() * 100
    assert verdict.positive.trait == pytest.approx(odds, abs=1e-4)
    assert verdict.negative.trait == pytest.approx(100 - odds, abs=1e-4)


def test_a_reward_model_is_loaded_as_evaluation_loads_it(base: Path, tmp_path: Path) -> None:
    judge = RewardJudge(str(base))
    pair = Written((("user", "Why?"),), "Because it is so.", "No idea, go away.")
    with pytest.raises(PvMergeError, match="without a score head"):
        judge.judge([pair], lambda: None)
