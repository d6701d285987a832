"""A small Hub on loopback: the endpoints that huggingface_hub uses, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_endpoints import ROUTES
from hub_store import READ_TOKEN, USER, WRITE_TOKEN, Blob, Repo


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match, so many times."""

    method: str
    path: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Close the connection when half of the body has come."""
    lose: bool = False
    """Do what is asked, then close the connection without an answer."""
    slow: float = 0.0
    """Seconds to wait for each 64 KiB of the body."""


class Hub(ThreadingHTTPServer):
    """The server; ``endpoint`` is what HF_ENDPOINT must be."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}/cdn"  # another origin: no token may come here
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, bool]] = []
        """(method, path, whether a token came with it)"""
        self.lock = threading.Lock()
        self.waits: Any = None

    def fail(self, method: str, path: str, times: int = 1, **how: Any) -> None:
        """Let the next ``times`` requests that match (a regular expression) go wrong."""
        self.faults.append(Fault(method, path, times, **how))

    def fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of a request, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, path: str) -> int:
        """Return how many requests of that kind came."""
        return sum(m == method and re.search(path, p) is not None for m, p, _ in self.requests)

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> Repo:
        """Put a repository there as if it had been pushed."""
        repo = self.repos[name] = Repo(private)
        lfs = (".safetensors", ".bin")
        repo.commit("main", {n: Blob(data, n.endswith(lfs)) for n, data in files.items()})
        return repo

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break off; the tests break them."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Hub
    _headers_buffer: list[bytes]

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        with self.server.lock:
            token = "Authorization" in self.headers
            self.server.requests.append((self.command, unquote(path), token))
        fault = self.server.fault(self.command, unquote(path))
        body = self._body(fault)
        if body is None or (fault and fault.cut):
            self._hang_up()
            return
        if fault and fault.status:
            self._send(fault.status, {"error": "a fault on demand"}, fault.headers)
            return
        status, answer, headers = self._answer(path, body)
        if fault and fault.lose:
            self._hang_up()
            return
        self._send(status, answer, headers)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self, fault: Fault | None) -> bytes | None:
        """Return the body, read slowly or by half where a fault asks for it."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
                if fault and fault.cut:
                    return None
                time.sleep(fault.slow if fault else 0)
            self.rfile.readline()
            return b"".join(parts)
        left = int(self.headers.get("Content-Length") or 0)
        if fault and fault.cut:
            self.rfile.read(left // 2)
            return None
        parts = []
        while left:
            parts.append(self.rfile.read(min(left, 1 << 16)))
            left -= len(parts[-1])
            time.sleep(fault.slow if fault else 0)
        return b"".join(parts)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = dict(headers or {})
        self.send_response(status)
        if status >= 400:
            headers.setdefault("X-Request-Id", "test")
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self._headers_buffer.extend([b"\r\n", data])  # one packet, so that nothing waits
            self.flush_headers()
        else:
            self.end_headers()

    def _answer(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/cdn/"):
            return 200, self.server.objects[path.rpartition("/")[2]], {}
        if path.startswith("/lfs/"):
            return self._lfs_storage(path, body)
        said = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if said and said not in (WRITE_TOKEN, READ_TOKEN):
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        self.user = USER if said else None
        self.writes = said == WRITE_TOKEN
        with self.server.lock:
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == ("GET" if self.command == "HEAD" else self.command):
                    return answer(self, *(unquote(part) for part in match.groups()), body=body)
        return 404, {"error": f"no such endpoint: {self.command} {path}"}, {}

    def _lfs_storage(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        _, _, oid, *rest = path.split("/")
        if self.command == "POST":
            said = json.loads(body)["parts"]
            body = b"".join(self.server.parts[oid, part["partNumber"]] for part in said)
        elif rest:
            self.server.parts[oid, int(rest[0])] = body
            return 200, {}, {"ETag": hashlib.md5(body).hexdigest()}
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "the content has another hash"}, {}
        self.server.objects[oid] = body
        return 200, {}, {}

    def _repo(self, name: str, write: bool = False) -> Repo | tuple[int, Any, dict[str, str]]:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.user != name.partition("/")[0]):
            status = 404 if self.user else 401
            return status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if write and not (self.writes and self.user == name.partition("/")[0]):
            return 403, {"error": "You do not have write access"}, {}
        return repo


@contextmanager
def running() -> Iterator[Hub]:
    """Yield a server that runs until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
