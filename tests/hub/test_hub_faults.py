"""Everything that can go wrong between the client and the Hub, and what the user sees of it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hub_client import connected, content, merge_folder
from hub_store import WRITE_TOKEN

from pv_merge.errors import PvMergeError
from pv_merge.hub.pull import pull
from pv_merge.hub.push import push
from pv_merge.hub.push_plan import PushOptions

from hub_server import Hub

CREATED = "alice/polite was created and holds no files yet: nothing is published; the same command"


@pytest.fixture
def hub(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with connected(monkeypatch, tmp_path) as found:
        yield found
    records = caplog.get_records("call")
    assert not any(WRITE_TOKEN in record.getMessage() for record in records)
    shown = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert not any("secret" in line for line in shown)


FAULTS = [
    ("POST", "/repos/create", 401, "does not accept the token.*Nothing was created"),
    ("POST", "/repos/create", 403, "has it the role `write`.*Nothing was created"),
    ("POST", "/repos/create", 409, "exists already; add --exist-ok.*Nothing was created"),
    ("POST", "/repos/create", 429, r"\(429\).*Nothing was created"),
    ("POST", "/repos/create", 500, r"failed \(500\).*Nothing was created"),
    ("POST", "/preupload/", 403, f"the token may not do this.*{CREATED} with --exist-ok"),
    ("POST", "/objects/batch", 401, f"does not accept the token.*{CREATED} with --exist-ok"),
    ("PUT", "/lfs/", 403, f"the token may not do this.*{CREATED} with --exist-ok"),
    ("PUT", "/lfs/", 500, rf"failed \(500\), after several tries.*{CREATED} with --exist-ok"),
    ("POST", "/lfs/", 429, rf"\(429\).*{CREATED} with --exist-ok"),
    ("POST", "/commit/", 403, f"the token may not do this.*{CREATED} with --exist-ok"),
    ("POST", "/commit/", 409, f"another change to it came in between.*{CREATED}"),
    ("POST", "/commit/", 500, rf"failed \(500\).*{CREATED} with --exist-ok"),
]


@pytest.mark.parametrize(("method", "path", "status", "line"), FAULTS)
def test_a_status_that_stays(hub: Hub, tmp_path: Path, method, path, status, line):
    folder = merge_folder(tmp_path / "merged")
    hub.fail(method, path, times=99, status=status)
    with pytest.raises(PvMergeError, match=line) as error:
        push(folder, "alice/polite")
    assert error.value.message.startswith("alice/polite: ") and "\n" not in error.value.message
    for repo in hub.repos.values():
        assert set(repo.files("main") or {}) == {".gitattributes"}
    _second_try(hub, folder, tmp_path)


@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/objects/batch", "/commit/"])
@pytest.mark.parametrize("status", [429, 500])
def test_a_status_that_passes(hub: Hub, tmp_path: Path, path, status):
    headers = {"Retry-After": "7"} if status == 429 else {}
    hub.fail("POST", path, times=2, status=status, headers=headers)
    push(merge_folder(tmp_path / "merged"), "alice/polite")
    assert len(hub.waits.seconds) == 2
    assert status != 429 or min(hub.waits.seconds) >= 7


def test_what_the_rate_limit_says_is_passed_on(hub: Hub, tmp_path: Path):
    hub.fail("POST", "/commit/", times=99, status=429, headers={"Retry-After": "900"})
    with pytest.raises(PvMergeError, match=r"\(429\); it asks to wait 900 seconds"):
        push(merge_folder(tmp_path / "merged"), "alice/polite")
    assert hub.count("POST", "/commit/") == 1


@pytest.mark.parametrize("path", [r"/lfs/\w+/2$", r"/lfs/\w+/4$"])
def test_a_connection_cut_in_mid_upload_is_made_again(hub: Hub, tmp_path: Path, path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("PUT", path, times=2, cut=True)
    push(folder, "alice/polite")
    assert content(pull("alice/polite", tmp_path / "back")) == content(folder)


def test_a_connection_that_stays_cut(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("PUT", "/lfs/", times=99, cut=True)
    with pytest.raises(PvMergeError, match=f"connection to the Hub was lost.*{CREATED}"):
        push(folder, "alice/polite")
    _second_try(hub, folder, tmp_path)


def test_a_second_try_does_not_send_what_has_arrived(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("POST", "/commit/", times=99, status=500)
    with pytest.raises(PvMergeError):
        push(folder, "alice/polite")
    sent = hub.count("PUT", "/lfs/")
    _second_try(hub, folder, tmp_path)
    assert hub.count("PUT", "/lfs/") == sent


def test_a_commit_whose_answer_is_lost_is_found(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("POST", "/commit/", lose=True)
    assert push(folder, "alice/polite")
    assert len(hub.repos["alice/polite"].messages) == 1
    assert content(pull("alice/polite", tmp_path / "back")) == content(folder)


def test_a_commit_that_nobody_can_ask_about_is_said_to_be_unknown(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("POST", "/commit/", lose=True)
    hub.fail("GET", "/tree/", times=99, cut=True)
    with pytest.raises(PvMergeError, match="Whether the commit arrived is not known"):
        push(folder, "alice/polite")
    hub.faults.clear()
    push(folder, "alice/polite", PushOptions(exist_ok=True))
    assert len(hub.repos["alice/polite"].messages) == 1


def test_a_push_in_between_is_not_overwritten(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    push(folder, "alice/polite")
    other = merge_folder(tmp_path / "other", eta=0.5, seed=1)
    storage = hub.objects

    class Meanwhile(dict):
        def __setitem__(self, oid, data):
            super().__setitem__(oid, data)
            repo = hub.repos["alice/polite"]
            repo.commit("main", {**(repo.files("main") or {})})

    hub.objects = Meanwhile(storage)
    with pytest.raises(PvMergeError, match=r"came in between \(412\).*is as it was"):
        push(other, "alice/polite", PushOptions(exist_ok=True))
    hub.objects = dict(hub.objects)
    push(other, "alice/polite", PushOptions(exist_ok=True))
    assert content(pull("alice/polite", tmp_path / "back")) == content(other)


def test_a_slow_link_only_takes_longer(hub: Hub, tmp_path: Path):
    folder = merge_folder(tmp_path / "merged")
    hub.fail("PUT", "/lfs/", times=99, slow=0.1)
    push(folder, "alice/polite")
    assert hub.waits.seconds == []
    assert content(pull("alice/polite", tmp_path / "back")) == content(folder)


def test_an_interrupt_says_what_is_there(hub: Hub, tmp_path: Path, monkeypatch):
    folder = merge_folder(tmp_path / "merged")

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub._commit_api.lfs_upload", interrupted)
        with pytest.raises(PvMergeError, match=f"alice/polite: interrupted. {CREATED}"):
            push(folder, "alice/polite")
    _second_try(hub, folder, tmp_path)


def test_a_network_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PvMergeError, match="connection to the Hub was lost or could not be made"):
        push(merge_folder(tmp_path / "merged"), "alice/polite")
    with pytest.raises(PvMergeError, match=r"alice/polite: .*the Hub cannot be reached"):
        pull("alice/polite")


@pytest.mark.parametrize("status", [429, 500])
def test_a_pull_goes_on_where_it_was(hub: Hub, tmp_path: Path, status):
    folder = merge_folder(tmp_path / "merged")
    push(folder, "alice/polite")
    hub.fail("GET", "/cdn/", times=2, status=status)
    try:
        pull("alice/polite", tmp_path / "back")
    except PvMergeError as error:
        assert not (tmp_path / "back").exists()
        assert re.search(rf"\({status}\)", error.message)
        pull("alice/polite", tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path):
    push(merge_folder(tmp_path / "merged"), "alice/polite")
    with pytest.raises(PvMergeError, match="alice/polite@eta-9: the Hub has no such revision"):
        pull("alice/polite@eta-9")


def _second_try(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """The same command, with --exist-ok where the message says so, completes what was begun."""
    hub.faults.clear()
    push(folder, "alice/polite", PushOptions(exist_ok="alice/polite" in hub.repos))
    assert len(hub.repos["alice/polite"].messages) == 1
    assert content(pull("alice/polite", tmp_path / "again")) == content(folder)
