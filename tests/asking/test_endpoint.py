"""An endpoint that answers well, badly, late, or not at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pv_merge.asking.asker import PATIENCE, Asker
from pv_merge.asking.endpoint import Endpoint as Client
from pv_merge.asking.exchange import Failure, Reply, Request
from pv_merge.asking.replies import ReplyCache
from pv_merge.asking.settings import ModelSettings
from pv_merge.errors import PvMergeError

from scripted_endpoint import Endpoint, Said, Script, scripted

SOON = {"retry-after-ms": "1"}


@contextmanager
def asking(folder: Path, script: Script, **settings: Any) -> Iterator[tuple[Asker, Endpoint]]:
    with scripted(script) as endpoint:
        said = ModelSettings.model_validate({"url": endpoint.url, "model": "m", **settings})
        yield Asker(Client(said, "writer"), ReplyCache(folder / "cache.sqlite")), endpoint


def request(text: str = "Hello", seed: int = 0) -> Request:
    return Request((("system", "Be kind."), ("user", text)), 50, 0.7, seed)


def test_a_reply_has_text_tokens_and_the_request_what_was_asked(tmp_path: Path) -> None:
    with asking(tmp_path, lambda body: Said("Hi there."), options={"top_p": 0.9}) as (
        asker,
        server,
    ):
        assert asker.ask([request()]) == [
            Reply("Hi there.", False, 3, 2, False, pytest.approx(0, abs=30))
        ]
        body = server.bodies[0]
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"], body["top_p"]) == (
        "m", 50, 0.7, 0, 0.9,
    )  # fmt: skip


def test_an_option_of_null_leaves_a_field_out_and_system_role_false_moves_the_text(
    tmp_path: Path,
) -> None:
    settings = {"options": {"seed": None, "max_completion_tokens": 9}, "system_role": False}
    with asking(tmp_path, lambda body: Said("Hi."), **settings) as (asker, server):
        asker.ask([request()])
        body = server.bodies[0]
    assert "seed" not in body and body["max_completion_tokens"] == 9
    assert body["messages"] == [{"role": "user", "content": "Be kind.\n\nHello"}]


def test_what_was_answered_once_is_never_asked_again(tmp_path: Path) -> None:
    with asking(tmp_path, lambda body: Said("Hi.")) as (asker, server):
        asker.ask([request("a"), request("b"), request("a")])
        assert len(server.bodies) == 2
        again = Asker(asker.backend, ReplyCache(tmp_path / "cache.sqlite"))
        again.ask([request("b"), request("a")])
        assert (len(server.bodies), again.cost.cached, again.cost.requests) == (2, 2, 0)
        again.ask([request("a", seed=1)])
        assert len(server.bodies) == 3


def test_as_many_at_a_time_as_the_settings_allow(tmp_path: Path) -> None:
    with asking(tmp_path, lambda body: Said("Hi.", wait=0.05), concurrency=3) as (asker, server):
        replies = asker.ask([request(str(i)) for i in range(9)])
    assert all(isinstance(reply, Reply) for reply in replies)
    assert server.most == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(tmp_path: Path, status: int) -> None:
    faults = [Said(status=status, headers=SOON), Said(status=status, headers=SOON)]

    def script(body: dict[str, Any]) -> Said:
        return faults.pop() if faults else Said("At last.")

    with asking(tmp_path, script) as (asker, server):
        reply = asker.ask([request()])[0]
    assert isinstance(reply, Reply) and reply.text == "At last."
    assert len(server.bodies) == 3


def test_one_request_that_always_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        broken = body["messages"][1]["content"] == "broken"
        return Said(status=500, headers=SOON) if broken else Said("Fine.")

    with asking(tmp_path, script, retries=2) as (asker, _):
        first, second, third = asker.ask([request("a"), request("broken"), request("b")])
    assert isinstance(second, Failure) and second.reason.startswith("HTTP 500")
    assert isinstance(first, Reply) and isinstance(third, Reply)
    assert (asker.cost.requests, asker.cost.failed) == (2, 1)


def test_broken_json_and_other_json_are_asked_for_again_then_given_up(tmp_path: Path) -> None:
    bodies = [b'{"choices": [{"mess', b"[]", b'{"choices": []}', b'{"choices": [{"mess']

    def script(body: dict[str, Any]) -> Said:
        return Said(body=bodies.pop(0)) if bodies else Said("Whole.")

    with asking(tmp_path, script) as (asker, server):
        assert asker.ask([request()]) == [Failure("the reply is not a chat completion")]
        assert len(server.bodies) == 3
        reply = asker.ask([request()])[0]
    assert isinstance(reply, Reply) and reply.text == "Whole."


def test_a_page_of_html_is_no_chat_completion(tmp_path: Path) -> None:
    page = Said(body=b"<html>hello</html>", headers={"Content-Type": "text/html"})
    with asking(tmp_path, lambda body: page) as (asker, _):
        assert asker.ask([request()]) == [Failure("the reply is not a chat completion")]


def test_an_endpoint_that_hangs_is_left_after_the_timeout(tmp_path: Path) -> None:
    with asking(tmp_path, lambda body: Said("Late.", wait=3), timeout=0.2, retries=0) as (asker, _):
        start = time.perf_counter()
        assert asker.ask([request()]) == [Failure("no answer within 0.2 s")]
    assert time.perf_counter() - start < 3


def test_null_content_is_an_empty_reply_and_thoughts_are_left_out(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        empty = body["messages"][1]["content"] == "empty"
        return Said(None) if empty else Said("<think>Hm, well.</think>\n\nYes.", usage=False)

    with asking(tmp_path, script) as (asker, _):
        empty, thought = asker.ask([request("empty"), request("thought")])
    assert isinstance(empty, Reply) and empty.text == ""
    assert isinstance(thought, Reply) and thought.text == "Yes."
    assert thought.estimated and thought.tokens_in > 0 and asker.cost.estimated


def test_a_prompt_too_long_for_the_context_fails_alone(tmp_path: Path) -> None:
    long = request("word " * 4000)
    with asking(tmp_path, lambda body: Said("Hi."), context=2048) as (asker, server):
        first, second = asker.ask([long, request()])
    assert isinstance(first, Failure) and first.too_long and "2048" in first.reason
    assert isinstance(second, Reply) and len(server.bodies) == 1

    def script(body: dict[str, Any]) -> Said:
        return Said(status=400, error={"code": "context_length_exceeded"})

    with asking(tmp_path / "b", script) as (asker, _):
        answers = asker.ask([request(str(index)) for index in range(2 * PATIENCE)])
    assert all(isinstance(answer, Failure) and answer.too_long for answer in answers)


def test_request_after_request_failing_ends_the_run(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Said:
        return Said(status=400, error={"message": "no such option"})

    with (
        asking(tmp_path, script) as (asker, server),
        pytest.raises(PvMergeError, match=rf"{PATIENCE} requests failed .* no such option"),
    ):
        asker.ask([request(str(index)) for index in range(100)])
    assert len(server.bodies) < 100


def test_nobody_at_the_address_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    settings = ModelSettings(url=url, model="m", retries=0)
    asker = Asker(Client(settings, "writer"), ReplyCache(tmp_path / "c.sqlite"))
    with pytest.raises(PvMergeError, match=rf"writer: {url} cannot be reached"):
        asker.ask([request()])


def test_a_dropped_connection_is_tried_again(tmp_path: Path) -> None:
    drops = [Said(drop=True)]
    with asking(tmp_path, lambda body: drops.pop() if drops else Said("Hi.")) as (asker, server):
        reply = asker.ask([request()])[0]
    assert isinstance(reply, Reply) and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("status", "told"), [(401, "is not set"), (404, "is the model's name right")]
)
def test_what_no_request_can_mend_stops_at_once(tmp_path: Path, status: int, told: str) -> None:
    with (
        asking(tmp_path, lambda body: Said(status=status), key_env="PV_NO_SUCH") as (asker, server),
        pytest.raises(PvMergeError, match=told),
    ):
        asker.ask([request(str(index)) for index in range(40)])
    assert len(server.bodies) < 40


def test_the_key_goes_to_the_server_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-s3cret-0123456789"
    monkeypatch.setenv("PV_TEST_KEY", key)

    def script(body: dict[str, Any]) -> Said:
        return Said(status=401, error={"message": f"wrong key {key}"})

    with asking(tmp_path, lambda body: Said("Hi."), key_env="PV_TEST_KEY") as (asker, server):
        asker.ask([request()])
        assert server.keys == [f"Bearer {key}"]
        assert key not in repr(asker.backend.identity) + asker.backend.name
    with asking(tmp_path, script, key_env="PV_TEST_KEY") as (asker, _):
        with pytest.raises(PvMergeError, match="PV_TEST_KEY was not accepted") as caught:
            asker.ask([request("other")])
        assert key not in caught.value.message

    def bad(body: dict[str, Any]) -> Said:
        return Said(status=400, error={"message": f"bad request by {key}"})

    with asking(tmp_path, bad, key_env="PV_TEST_KEY") as (asker, _):
        answer = asker.ask([request("third")])[0]
    assert isinstance(answer, Failure) and "bad request by ***" in answer.reason
    assert not any(key.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_cache_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_text("not a database, but some text that is long enough to be looked at")
    with pytest.raises(PvMergeError, match="cannot be used as the cache of replies"):
        ReplyCache(path)
