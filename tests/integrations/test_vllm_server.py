"""Real vLLM servers, asked through the official client: ``make test-vllm`` runs these.

It makes ``runs/serving``: the low-rank vectors of the shipped policies, and ``merged``, the checkpoint
that ``pv-merge run`` makes of one mix of them.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from test_serving_names import HOSTILE

ROOT = Path(__file__).parents[2]
BASE = ROOT / "models" / "smollm2-135m-instruct"
INPUTS = ROOT / "runs" / "serving"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="needs vLLM; make test-vllm sets it up"
    ),
    pytest.mark.skipif(
        not (INPUTS / "merged").is_dir(), reason="needs runs/serving; make test-vllm makes it"
    ),
]

MIX = "concise=-0.3,polite=0.8"
"""The mix that ``runs/serving/merged`` is made of."""

OTHER = "concise=0.6,polite=-0.4"

TOLERANCE = 1e-3
"""On a token's log-probability, between two routes to the same weights in float32."""


class Answer(NamedTuple):
    """What a model said."""

    text: str
    logprob: float
    """Of the first token."""
    model: str


def prompts(count: int = 12) -> list[str]:
    path = ROOT / "recipes" / "quickstart" / "data" / "polite-heldout.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["prompt"]) for line in lines[:count]]


def ask(client: Any, model: str, prompt: str, tokens: int = 24) -> Answer:
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=tokens,
        temperature=0,
        logprobs=True,
    )
    choice = reply.choices[0]
    return Answer(choice.message.content, choice.logprobs.content[0].logprob, reply.model)


def ask_all(client: Any, calls: Sequence[tuple[str, str]], at_once: int = 6) -> list[Answer]:
    """Ask (model, prompt) pairs, several in a batch."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda call: ask(client, *call), calls))


def same(left: Answer, right: Answer) -> bool:
    return left.text == right.text and abs(left.logprob - right.logprob) < TOLERANCE


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """The answers of our own merged checkpoint, served by itself."""
    from benchmarks.vllm_server import Server

    log = tmp_path_factory.mktemp("merged") / "server.log"
    with Server(INPUTS / "merged", log) as server:
        return ask_all(server.client(), [("base", prompt) for prompt in prompts()])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(
    merged: list[Answer], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The base with the plugin: three mixes at a time, four in memory, three on disk."""
    from benchmarks.vllm_server import Server

    environment = {
        "PV_MERGE_VECTORS": str(INPUTS / "vectors"),
        "PV_MERGE_CACHE": str(cache),
        "PV_MERGE_SERVE_CACHE_MIXES": "3",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }
    options = ("--enable-lora", "--max-loras", "3", "--max-cpu-loras", "4", "--max-lora-rank", "16")
    log = tmp_path_factory.mktemp("base") / "server.log"
    with Server(BASE, log, *options, environment=environment) as running:
        yield running
        assert running.healthy()


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


@pytest.fixture(scope="module")
def base(client: Any) -> list[Answer]:
    return ask_all(client, [("base", prompt) for prompt in prompts()])


def test_a_mix_says_what_the_merged_checkpoint_says(
    client: Any, base: list[Answer], merged: list[Answer]
) -> None:
    # After the base, on the same prompts: a shared prefix cache would show here.
    answers = ask_all(client, [(MIX, prompt) for prompt in prompts()])
    assert len(answers) >= 10
    worst = max(abs(a.logprob - b.logprob) for a, b in zip(answers, merged, strict=True))
    equal = sum(a.text == b.text for a, b in zip(answers, merged, strict=True))
    moved = sum(a.text != b.text for a, b in zip(answers, base, strict=True))
    print(f"{equal} of {len(merged)} texts equal, first log-prob within {worst:.1e}; {moved} moved")
    assert [a.text for a in answers] == [b.text for b in merged]
    assert worst < TOLERANCE
    assert moved >= 3


def test_a_mix_of_zeros_is_the_base(client: Any, base: list[Answer]) -> None:
    answers = ask_all(client, [("polite=0,concise=-0.00", prompt) for prompt in prompts()])
    assert all(same(a, b) for a, b in zip(answers, base, strict=True))


def test_mixes_in_one_batch_do_not_disturb_each_other(
    client: Any, base: list[Answer], merged: list[Answer]
) -> None:
    # The base stands here as a mix of zeros. Under its own name, in a batch with mixes, vLLM's CPU
    # backend gives it the adapter of the last slot: its operators index the slots with the -1 that
    # stands for "none" (vllm-project/vllm, pull request 48421). Those for GPUs skip it.
    some = prompts(6)
    alone = ask_all(client, [(OTHER, prompt) for prompt in some], at_once=1)
    calls = [(model, prompt) for prompt in some for model in (MIX, OTHER, "polite=0")]
    together = ask_all(client, calls, at_once=9)
    for number in range(len(some)):
        mix, other, plain = together[3 * number : 3 * number + 3]
        assert same(mix, merged[number])
        assert same(other, alone[number])
        assert same(plain, base[number])
    assert any(a.text != b.text for a, b in zip(alone, merged, strict=False))


def test_spellings_share_an_adapter_in_one_batch(client: Any, merged: list[Answer]) -> None:
    names = [
        MIX,
        "polite=.8, concise=-.30",
        "polite=+0.80,concise=-0.3",
        "polite=0.801,concise=-3e-1",
    ]
    answers = ask_all(client, [(name, prompts(1)[0]) for name in names * 2], at_once=8)
    assert {answer.model for answer in answers} == {MIX}
    assert all(same(answer, merged[0]) for answer in answers)


def test_more_mixes_than_memory_and_cache_hold(client: Any, server: Any, cache: Path) -> None:
    names = [f"polite=0.{digit},concise=0.1" for digit in range(1, 9)]
    prompt = prompts(1)[0]
    first = [ask(client, name, prompt, 4) for name in names]
    assert len({answer.logprob for answer in first}) == len(names)
    mixes = next(cache.glob("serving/*/mixes"))
    assert len(list(mixes.iterdir())) == 3
    assert all(
        same(ask(client, name, prompt, 4), answer)
        for name, answer in zip(names, first, strict=True)
    )
    assert any("made concise=0.1,polite=0.1 again" in line for line in server.lines())
    shutil.rmtree(cache / "serving")
    again = ask_all(client, [(name, prompt) for name in names], at_once=8)
    assert [a.logprob for a in again] == pytest.approx([a.logprob for a in first], abs=TOLERANCE)
    assert ask(client, "polite=0.33", prompt, 4).model == "polite=0.33"


# JSON cannot carry a lone surrogate, and the engine takes an empty name as that of the base.
NAMES = [name for name in HOSTILE if name and "\ud800" not in name and "honest" not in name]


def test_hostile_names_are_the_clients_mistake(client: Any, server: Any) -> None:
    import openai

    for name in [*NAMES, "harmless=-1", "nope=1", "polite=9"]:
        before = len(server.lines())
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, name, "Hello", 1)
        assert 400 <= caught.value.status_code < 500, name
        new = server.lines()[before:]
        assert len(new) == 1 and "no adapter for model" in new[0], (name, new)
    assert server.healthy()
    assert ask(client, "polite=0.5", "Hello", 1).model == "polite=0.5"


def test_a_rank_over_the_servers_is_refused(client: Any, server: Any) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match="could not be loaded"):
        ask(client, "polite=1,concise=1,harmless=1", "Hello", 1)
    assert "LoRA rank 24 is greater than max_lora_rank 16" in server.text()
    assert server.healthy()
