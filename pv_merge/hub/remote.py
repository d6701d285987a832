"""One repository on the Hub, as a push sees it: what is there, and one commit to it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pv_merge.artifacts.manifest import RUN_MANIFEST, VECTOR_MANIFEST
from pv_merge.artifacts.network import explain, explained, patiently, status_of
from pv_merge.errors import PvMergeError, Topic
from pv_merge.version import __version__

Wait = Callable[[float, int], None]
STALE = (
    ".safetensors",
    ".safetensors.index.json",
    "adapter_config.json",
    "mergekit_config.yml",
    "pv_merge_report.json",
    RUN_MANIFEST,
    VECTOR_MANIFEST,
)
"""Ends of files of an earlier push that would be loaded with the new ones, or belie them."""


class Remote:
    """A model repository. Every method raises ``PvMergeError`` where the Hub says no."""

    def __init__(self, repo: str, wait: Wait) -> None:
        from huggingface_hub import HfApi, get_token

        token = get_token()
        if token is None:
            raise PvMergeError(
                f"{repo}: there is no token to push with; log in with `hf auth login`, or set HF_TOKEN"
            )
        self.repo, self._wait = repo, wait
        self.uncertain = False
        """Whether it is not known if the last commit arrived."""
        self._api = HfApi(token=token, library_name="pv-merge", library_version=__version__)

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{self._api.endpoint}/{self.repo}"

    def info(self, revision: str | None = None) -> Any | None:
        """Return what the Hub says of the repository, or None where it or the revision is not."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        with explained(self.repo):
            try:
                return self._patiently(lambda: self._api.model_info(self.repo, revision=revision))
            except (RepositoryNotFoundError, RevisionNotFoundError) as error:
                if status_of(error) == 404:
                    return None
                raise

    def create(self, public: bool) -> None:
        """Create the repository. A 409 says that it exists; somebody was faster."""
        try:
            self._patiently(
                lambda: self._api.create_repo(self.repo, private=not public, repo_type="model")
            )
        except Exception as error:
            if status_of(error) == 409:
                raise PvMergeError(
                    f"{self.repo}: exists already; add --exist-ok to write to it, or name another"
                ) from error
            raise explain(error, self.repo) from error

    def branch(self, name: str) -> None:
        """Create a branch from main, unless it is there."""
        with explained(f"{self.repo}@{name}"):
            self._patiently(lambda: self._api.create_branch(self.repo, branch=name, exist_ok=True))

    def text(self, name: str, revision: str) -> str | None:
        """Return a text file of the repository, or None where it has none of that name."""
        from huggingface_hub.errors import EntryNotFoundError

        with explained(self.repo), tempfile.TemporaryDirectory() as cache:
            try:
                path = self._patiently(
                    lambda: self._api.hf_hub_download(
                        self.repo, name, revision=revision, cache_dir=cache
                    )
                )
            except EntryNotFoundError:
                return None
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def licence(self, model: str) -> tuple[str, str | None, str | None] | None:
        """Return (identifier, name, link) of another model's licence, where the Hub tells it."""
        try:
            data = self._api.model_info(model).card_data
        except Exception:  # unknown is an answer, too
            return None
        if data is None or not isinstance(data.license, str):
            return None
        return data.license.lower(), data.license_name, data.license_link

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        message: str,
        revision: str | None,
        told: Callable[[str], None],
    ) -> str:
        """Send all ``files`` as one commit on top of what is there now, and return its hash.

        Weights and manifests of an earlier push that are not among ``files`` go with it. A commit whose answer got
        lost is looked for before it is made again, or reported as failed; where the Hub cannot be
        asked, ``uncertain`` says so.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        self.uncertain = False
        before = self.info(revision)
        head = before.sha if before else None
        old = {item.rfilename for item in (before.siblings or [])} if before else set()
        stale = sorted(
            name for name in old - set(files) if name.endswith(STALE) and "/" not in name
        )
        for name in stale:
            told(f"removing {name}, which belongs to an earlier push")
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        # The client tries this part several times by itself, and remembers what has arrived.
        self._api.preupload_lfs_files(
            self.repo, additions=additions, revision=revision, free_memory=False
        )
        posted = False

        def send() -> str:
            nonlocal posted
            if posted and self._holds(additions, revision):
                return str(self._api.model_info(self.repo, revision=revision).sha)
            posted = True
            found = self._api.create_commit(
                self.repo,
                operations=[*(CommitOperationDelete(name) for name in stale), *additions],
                commit_message=message,
                revision=revision,
                parent_commit=head,
            )
            return str(found.oid)

        try:
            commit: str = self._patiently(send)
        except (Exception, KeyboardInterrupt) as error:
            status = status_of(error)
            if not posted or (status is not None and status < 500):
                raise
            try:
                arrived = self._holds(additions, revision)
                commit = str(self._api.model_info(self.repo, revision=revision).sha)
            except Exception:  # the first error is the one to report
                self.uncertain = True
                raise error from None
            if not arrived:
                raise
        self._verify(additions, commit, told)
        return commit

    def _verify(self, additions: list[Any], commit: str, told: Callable[[str], None]) -> None:
        try:
            whole = self._holds(additions, commit)
        except Exception as error:
            told(f"the commit was made, but could not be checked ({type(error).__name__})")
            return
        if not whole:
            raise PvMergeError(
                f"{self.repo}: the commit {commit[:8]} was made, but lacks some of the files; has "
                "the repository a .gitignore that names them?",
                Topic.COMMIT,
            )

    def _holds(self, additions: list[Any], revision: str | None) -> bool:
        """Return whether the revision has every added file with the same content."""
        from huggingface_hub.hf_api import RepoFile

        tree = self._api.list_repo_tree(self.repo, recursive=True, revision=revision)
        there = {item.path: item for item in tree if isinstance(item, RepoFile)}
        for addition in additions:
            item = there.get(addition.path_in_repo)
            if item is None:
                return False
            if item.lfs is not None:
                if item.lfs.sha256 != addition.upload_info.sha256.hex():
                    return False
            else:
                with addition.as_file() as file:
                    data = file.read()
                if item.blob_id != hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest():
                    return False
        return True

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return patiently(call, self._wait)


Told = Callable[[str], None]
