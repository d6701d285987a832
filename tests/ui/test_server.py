"""The page on a server: what is asked of it, and what its faults look like."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("openai", reason="the extra ui is not installed")

from pv_merge.errors import PvMergeError
from pv_merge.live.chat.session import ChatSession
from pv_merge.live.chat.stream import ChatSettings
from pv_merge.recipe.reading import read_recipe
from pv_merge.recipe.recipe import Recipe
from pv_merge.ui.server import ServerEngine

from models import pair, recipe


class Server(ThreadingHTTPServer):
    """Speaks as much of OpenAI's protocol as the page needs; each model says its own name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.keys.add(self.headers["Authorization"])
        self._send(200, json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if "rude" in body["messages"][-1]["content"]:
            self._send(404, json.dumps({"error": {"message": "The model does not exist."}}))
            return
        lines = [
            {"choices": [{"index": 0, "delta": {"content": piece}}]}
            for piece in ("I am ", body["model"])
        ]
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        self._send(200, text, "text/event-stream")

    def _send(self, status: int, text: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def read(tmp_path: Path) -> Recipe:
    """A recipe whose folders lie on the server's machine, not here."""
    inputs = pair("./far/p", "./far/n", 0.5, "polite")
    inputs += pair("./far/h", "./far/i", 0.0, "harmless")
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe("./far/base", inputs)))
    return read_recipe(path)


def ask(engine: ServerEngine, question: str, **etas: float) -> dict[Any, str]:
    session = ChatSession(engine, ChatSettings(max_new_tokens=7, system="Be brief."))
    session.change(etas)
    return session.ask(question, lambda side, text: None).answers


def test_a_mix_is_the_name_of_a_model(server: Server, read: Recipe) -> None:
    engine = ServerEngine(f"{server.url}/v1/", read)
    assert ask(engine, "Who?") == {"base": "I am tiny", "mix": "I am polite=0.5"}
    said = ask(engine, "Who?", polite=-0.3, harmless=0.8)
    assert said["mix"] == "I am harmless=0.8,polite=-0.3"
    assert ask(engine, "Who?", polite=0.0)["mix"] == "I am tiny"
    body = server.asked[0]
    assert body["max_tokens"] == 7 and body["stream"] and body["messages"][0]["role"] == "system"


def test_a_key_is_the_servers_and_nobody_elses(
    server: Server, read: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody-elses")
    ServerEngine(server.url, read)
    monkeypatch.setenv("VLLM_API_KEY", "its-own")
    ServerEngine(server.url, read)
    assert server.keys == {"Bearer none", "Bearer its-own"}


def test_a_protected_preference_is_not_even_asked_for(server: Server, read: Recipe) -> None:
    engine = ServerEngine(server.url, read)
    with pytest.raises(PvMergeError, match="harmless is a protected preference"):
        ask(engine, "Who?", harmless=-0.5)
    assert server.asked == []


def test_faults_are_one_line(server: Server, read: Recipe) -> None:
    engine = ServerEngine(server.url, read)
    with pytest.raises(PvMergeError, match=r"the server answered 404 \(.*does not exist"):
        ask(engine, "Be rude")
    with pytest.raises(PvMergeError, match="no server answers; is it up") as caught:
        ServerEngine("http://127.0.0.1:9", read)
    assert "\n" not in caught.value.message


def test_eta_by_layer_has_no_name(server: Server, read: Recipe, tmp_path: Path) -> None:
    document = yaml.safe_load(read.text)
    document["models"][0]["parameters"]["eta"] = [0, 1]
    path = tmp_path / "layers.yml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(PvMergeError, match="eta of polite differs by layer"):
        ServerEngine(server.url, read_recipe(path))
