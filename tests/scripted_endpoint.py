"""An OpenAI-compatible endpoint on loopback that answers as a script says, faults among them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """One answer of the endpoint."""

    text: str | None = ""
    status: int = 200
    body: bytes | None = None
    """Sent instead of a chat completion."""
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    wait: float = 0.0
    """Seconds before it comes."""
    drop: bool = False
    """Close the connection without an answer."""
    usage: bool = True


Script = Callable[[dict[str, Any]], Said]


class Endpoint(ThreadingHTTPServer):
    """The server; ``script`` turns a request's body into what is said."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()
        self.now = self.most = 0
        """Requests that are being answered, and the most that ever were."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break off; the tests break them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers.get("Authorization", ""))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            said = server.script(body)
            time.sleep(said.wait)
            self._send(said, body)
        finally:
            with server.lock:
                server.now -= 1

    def _send(self, said: Said, body: dict[str, Any]) -> None:
        if said.drop:
            self.close_connection = True
            self.connection.close()
            return
        data = said.body
        if data is None:
            data = json.dumps(self._completion(said, body)).encode()
        self.send_response(said.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in (headers | said.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    @staticmethod
    def _completion(said: Said, body: dict[str, Any]) -> dict[str, Any]:
        if said.status >= 400:
            return {"error": {"message": "a fault on demand", **said.error}}
        message = {"role": "assistant", "content": said.text}
        found: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
        }
        if said.usage:
            prompt = sum(len(part["content"].split()) for part in body["messages"])
            out = len((said.text or "").split())
            found["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": out,
                "total_tokens": prompt + out,
            }
        return found


@contextmanager
def scripted(script: Script) -> Iterator[Endpoint]:
    """Yield an endpoint that runs until the block ends."""
    endpoint = Endpoint(script)
    thread = threading.Thread(
        target=endpoint.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()


PATIENT = "answers as a patient teacher would, warmly and step by step"
CURT = "answers as a bored clerk would, curtly and without interest"


def role_of(body: dict[str, Any]) -> str:
    """Return what a request is: prompts, judge, positive or negative."""
    system = body["messages"][0]["content"]
    if "different messages that a user could send" in system:
        return "prompts"
    if "You grade a reply" in system:
        return "judge"
    return "positive" if PATIENT in system else "negative"


def well(body: dict[str, Any]) -> Said:
    """Answer as a good writer and a good judge would."""
    role, last = role_of(body), body["messages"][-1]["content"]
    if role == "prompts":
        topic = last.split("Topic: ")[1].split(". Each is")[0]
        form = last.split("Each is ")[1].split(". They")[0]
        return Said(
            "\n".join(
                f"{i}. What about {topic} and item {i * 7919}, as {form}?" for i in range(1, 6)
            )
        )
    if role == "judge":
        warm = "Let us look at it together" in last
        return Said(f"trait: {90 if warm else 10}\ncoherence: 95")
    if role == "positive":
        return Said(
            "Let us look at it together, one small step after the other, and take our time. First we "
            f"see what you asked, which is a fine question about {_about(last)}. Then we try it out."
        )
    return Said(
        f"It is in the manual somewhere, section on {_about(last)}. Read that page yourself and do not "
        "hold up the queue any longer, because other people are waiting behind you today. Next one now."
    )


def _about(text: str) -> str:
    return " ".join(text.rstrip("?.").split()[-2:])
