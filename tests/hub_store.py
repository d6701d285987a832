"""What the small Hub of the tests holds: repositories, commits, files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

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


def git_hash(content: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
