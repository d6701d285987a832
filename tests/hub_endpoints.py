"""The endpoints of the small Hub of the tests: each takes a connection and returns an answer."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hub_store import PART, USER, Blob, Repo, git_hash

if TYPE_CHECKING:
    from hub_server import Handler


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
