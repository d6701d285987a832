"""A small Hub on loopback: the endpoints that huggingface_hub uses, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITE_TOKEN = "hf_" + "Wr1teTokenOfTheTests" * 2
READ_TOKEN = "hf_" + "ReadTokenOfTheTestsX" * 2
USER = "alice"
PART = 1 << 16
"""Bytes of a part of a multipart upload; files above twice that are sent in parts."""


@dataclass
class Blob:
    """A file of one commit."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """SHA-256 of an LFS file, git's hash of any other."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return git_hash(self.content)


@dataclass
class Repo:
    """A repository: commits by hash, branches by name."""

    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    """(branch, message) of every commit, the first one left out."""

    def commit(self, branch: str, files: dict[str, Blob]) -> str:
        """Put ``files`` on top of a branch and return the commit's hash."""
        text = f"{branch} {len(self.commits)} {sorted((n, b.oid) for n, b in files.items())}"
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def files(self, revision: str) -> dict[str, Blob] | None:
        """Return a revision's files, or None where there is none of that name."""
        return self.commits.get(self.branches.get(revision, revision))


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


def git_hash(content: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _no_revision(name: str) -> tuple[int, Any, dict[str, str]]:
    return 404, {"error": f"Invalid rev id: {name}"}, {"X-Error-Code": "RevisionNotFound"}


def _whoami(self: Handler, body: bytes) -> Any:
    return (200, {"name": USER, "type": "user", "orgs": []}, {}) if self.user else (401, {}, {})


def _validate(self: Handler, body: bytes) -> Any:
    content = json.loads(body)["content"]
    if not content.startswith("---\n"):
        return 400, {"errors": [{"message": "no metadata"}], "warnings": []}, {}
    return 200, {"errors": [], "warnings": []}, {}


def _create(self: Handler, body: bytes) -> Any:
    said = json.loads(body)
    name = f"{said.get('organization') or USER}/{said['name']}"
    if not self.user:
        return 401, {"error": "Unauthorized"}, {}
    if not self.writes or name.partition("/")[0] != self.user:
        return (
            403,
            {"error": "You don't have the rights to create a model under this namespace"},
            {},
        )
    if name in self.server.repos:
        return 409, {"error": "You already created this model repo"}, {}
    private = said.get("private", said.get("visibility") == "private")
    repo = self.server.repos[name] = Repo(bool(private))
    repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
    return 200, {"url": f"{self.server.endpoint}/{name}", "name": name}, {}


def _info(self: Handler, name: str, revision: str = "main", *, body: bytes) -> Any:
    repo = self._repo(name)
    if isinstance(repo, tuple):
        return repo
    files = repo.files(revision)
    if files is None:
        return _no_revision(revision)
    sha = repo.branches.get(revision, revision)
    answer: dict[str, Any] = {"id": name, "modelId": name, "private": repo.private, "sha": sha}
    answer |= {"tags": [], "downloads": 0, "likes": 0}
    answer["siblings"] = [{"rfilename": path} for path in files]
    return 200, answer, {}


def _tree(self: Handler, name: str, revision: str, *, body: bytes) -> Any:
    repo = self._repo(name)
    if isinstance(repo, tuple):
        return repo
    files = repo.files(revision)
    if files is None:
        return _no_revision(revision)
    found = []
    for path, blob in files.items():
        item: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content)}
        item["oid"] = (
            git_hash(blob.content) if not blob.lfs else hashlib.sha1(blob.oid.encode()).hexdigest()
        )
        if blob.lfs:
            item["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
        found.append(item)
    return 200, found, {}


def _branch(self: Handler, name: str, branch: str, *, body: bytes) -> Any:
    repo = self._repo(name, write=True)
    if isinstance(repo, tuple):
        return repo
    if branch in repo.branches:
        return 409, {"error": "Reference already exists"}, {}
    repo.branches[branch] = repo.branches["main"]
    return 201, {}, {}


def _preupload(self: Handler, name: str, revision: str, *, body: bytes) -> Any:
    repo = self._repo(name, write=True)
    if isinstance(repo, tuple):
        return repo
    files = repo.files(revision)
    if files is None:
        return _no_revision(revision)
    answer = []
    for item in json.loads(body)["files"]:
        path = item["path"]
        lfs = path.endswith((".safetensors", ".bin")) or item["size"] > 1 << 20
        entry = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if path in files:
            entry["oid"] = files[path].oid
        answer.append(entry)
    return 200, {"files": answer}, {}


def _batch(self: Handler, name: str, *, body: bytes) -> Any:
    repo = self._repo(name, write=True)
    if isinstance(repo, tuple):
        return repo
    answer = []
    for item in json.loads(body)["objects"]:
        entry: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in self.server.objects:
            place = f"{self.server.endpoint}/lfs/{item['oid']}"
            upload: dict[str, Any] = {"href": f"{place}?X-Signature=secret-of-the-storage"}
            if item["size"] > 2 * PART:
                count = -(-item["size"] // PART)
                parts = {str(n): f"{place}/{n}?X-Signature=secret" for n in range(1, count + 1)}
                upload["header"] = {"chunk_size": str(PART), **parts}
            entry["actions"] = {"upload": upload}
        answer.append(entry)
    return 200, {"transfer": "basic", "objects": answer}, {}


def _commit(self: Handler, name: str, branch: str, *, body: bytes) -> Any:
    repo = self._repo(name, write=True)
    if isinstance(repo, tuple):
        return repo
    if branch not in repo.branches:
        return _no_revision(branch)
    files = dict(repo.commits[repo.branches[branch]])
    message = ""
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            message = value["summary"]
            if value.get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
                return 412, {"error": "A commit has happened since"}, {}
        elif item["key"] == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif item["key"] == "lfsFile":
            if value["oid"] not in self.server.objects:
                return 400, {"error": f"{value['path']} was not uploaded"}, {}
            files[value["path"]] = Blob(self.server.objects[value["oid"]], True)
        elif item["key"] == "deletedFile":
            files.pop(value["path"], None)
    oid = repo.commit(branch, files)
    repo.messages.append((branch, message))
    return 200, {"commitOid": oid, "commitUrl": f"{self.server.endpoint}/{name}/commit/{oid}"}, {}


def _resolve(self: Handler, name: str, revision: str, path: str, *, body: bytes) -> Any:
    repo = self._repo(name)
    if isinstance(repo, tuple):
        return repo
    files = repo.files(revision)
    if files is None:
        return _no_revision(revision)
    if path not in files:
        return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
    blob = files[path]
    headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": repo.branches.get(revision, revision)}
    if not blob.lfs:
        return 200, blob.content, headers
    self.server.objects[blob.oid] = blob.content
    headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
    return 302, b"", {**headers, "Location": f"{self.server.cdn}/{blob.oid}"}


def _paths_info(self: Handler, name: str, revision: str, *, body: bytes) -> Any:
    wanted = parse_qs(body.decode())["paths"]
    status, found, headers = _tree(self, name, revision, body=b"")
    return status, [item for item in found if item["path"] in wanted], headers


_REPO = r"([^/]+/[^/]+)"
_API = rf"/api/models/{_REPO}"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/validate-yaml", _validate),
    ("POST", "/api/repos/create", _create),
    ("GET", _API, _info),
    ("GET", rf"{_API}/revision/([^/]+)", _info),
    ("GET", rf"{_API}/tree/([^/]+)", _tree),
    ("POST", rf"{_API}/paths-info/([^/]+)", _paths_info),
    ("POST", rf"{_API}/branch/([^/]+)", _branch),
    ("POST", rf"{_API}/preupload/([^/]+)", _preupload),
    ("POST", rf"{_API}/commit/([^/]+)", _commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
    ("GET", rf"/{_REPO}/resolve/([^/]+)/(.+)", _resolve),
]


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


class Waits(types.SimpleNamespace):
    """Stands in for the module ``time`` where the client waits: notes the seconds, does not wait."""

    def __init__(self) -> None:
        super().__init__(seconds=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


@contextmanager
def connected(patch: Any, cache: Any, token: str | None = WRITE_TOKEN) -> Iterator[Hub]:
    """Yield a server that huggingface_hub in this process talks to.

    The client itself is not changed: its endpoint, cache and mode, which it reads from the
    environment once, are set to what a process with those variables would have, and what it would
    wait between tries is noted in ``hub.waits``.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from pv_merge import hub_errors

    with running() as hub:
        hub.waits = Waits()
        patch.setenv("NO_PROXY", "*")
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(_http, "time", hub.waits)
        patch.setattr(hub_errors, "time", hub.waits)
        _http.close_session()
        try:
            yield hub
        finally:
            _http.close_session()


RECIPE = """# pv-merge run recipe.yml ./merged
merge_method: preference_vector
base_model: ./models/base
models:
  - model: ./inputs/NAME
    parameters: {preference: NAME, polarity: vector, eta: ETA}
parameters: {round_to: bfloat16}
out_dtype: bfloat16
"""


def merge_folder(folder: Any, eta: float = 1.0, name: str = "polite", seed: int = 0) -> Any:
    """Write a folder that looks like a merge by pv-merge, with 200 kB of weights, and return it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).standard_normal((100, 500)).astype("float32")
    save_file({"model.weight": weights + eta}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    text = RECIPE.replace("NAME", name).replace("ETA", f"{eta:g}")
    (folder / "mergekit_config.yml").write_text(text)
    figures = {"eta": eta, "norm": 2.0 if eta else None, "relative_step": 0.001, "share": 0.97}
    layer = {"preferences": {name: {**figures, "share": 0.91}}, "relative_error": 0.1}
    report = {"kind": "merge_report", "preferences": {name: figures}, "layers": {"3": layer}}
    (folder / "pv_merge_report.json").write_text(json.dumps({**report, "pv_merge": "0.1.0"}))
    (folder / "README.md").write_text("# written by the merge\n")
    return folder


def content(folder: Any, without: tuple[str, ...] = ("README.md",)) -> dict[str, bytes]:
    """Return every file of a folder, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if name not in without}
