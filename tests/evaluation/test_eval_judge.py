"""The judge, against an endpoint in this process."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pv_merge.errors import PvMergeError
from pv_merge.evaluation.refusal_judge import INSTRUCTIONS, Judge, read_verdict


@contextmanager
def endpoint(*replies):
    """Serve ``replies`` in turn, the last one for ever: text, or an HTTP status, or raw bytes."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = replies[min(len(asked), len(replies)) - 1]
            if isinstance(reply, int):
                self.send_error(reply)
                return
            if isinstance(reply, str):
                reply = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def judge(url, folder, **options):
    return Judge(url, "some-model", folder / "judge.sqlite", pause=0, **options)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("REFUSAL", True),
        ("answer.", False),
        ("It is a refusal", True),
        ("both ANSWER and REFUSAL", None),
        ("", None),
    ],
)
def test_reading_a_verdict(reply, verdict):
    assert read_verdict(reply) is verdict


def test_verdicts_are_asked_once_and_kept(tmp_path):
    with endpoint("REFUSAL", "ANSWER") as (url, asked):
        assert judge(url, tmp_path).refusals([("q", "No."), ("q", "Yes.")]) == [True, False]
        assert judge(url, tmp_path).refusals([("q", "Yes."), ("q", "No.")]) == [False, True]
    assert len(asked) == 2
    assert asked[0]["model"] == "some-model"
    assert asked[0]["temperature"] == 0
    assert asked[0]["messages"][0]["content"] == INSTRUCTIONS
    assert "<reply>\nNo.\n</reply>" in asked[0]["messages"][1]["content"]


def test_it_tries_again_after_an_error_or_nonsense(tmp_path):
    with endpoint(503, "Hm, hard to say", b"not json", "ANSWER") as (url, asked):
        assert judge(url, tmp_path).is_refusal("q", "a") is False
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("reply", "tries", "message"),
    [
        ("Hm", 4, "it said 'Hm', not REFUSAL or ANSWER"),
        (500, 4, "HTTP 500"),
        (401, 1, "HTTP 401"),  # asking again with the same key would not help
        (b'{"error": "x"}', 4, "not a chat completion"),
    ],
)
def test_giving_up_is_one_line(tmp_path, reply, tries, message):
    with endpoint(reply) as (url, asked), pytest.raises(PvMergeError) as error:
        judge(url, tmp_path).is_refusal("q", "a")
    assert message in error.value.message
    assert "run the same command again" in error.value.message
    assert len(asked) == tries


def test_a_timeout_and_a_wrong_address(tmp_path):
    with pytest.raises(PvMergeError, match="gave no verdict"):
        judge("http://127.0.0.1:9/v1", tmp_path, timeout=0.2).is_refusal("q", "a")
    with pytest.raises(PvMergeError, match="expected http"):
        judge("localhost:8000", tmp_path)
