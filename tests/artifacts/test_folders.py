"""A folder appears whole or not at all, by one writer, and nothing that was there is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pv_merge.artifacts.folders import new_folder, only_writer, refuse_existing, write_json
from pv_merge.errors import PvMergeError

HOLD = """
import sys, time
from pathlib import Path
from pv_merge.artifacts.folders import new_folder
with new_folder(Path(sys.argv[1])) as work:
    (work / "half").write_text("x" * 1000)
    print("writing", flush=True)
    time.sleep(60)
"""

COMMAND = """
import sys, types, click
from pv_merge import cli

@click.command()
@click.argument("target")
def command(target):
    sys.argv = ["hold", target]
    exec(HOLD)

cli.COMMANDS["hold"] = ""
sys.modules["pv_merge.cli.hold"] = types.SimpleNamespace(command=command)
cli.main(["hold", sys.argv[1]])
"""


def writer(target: Path, code: str = HOLD) -> subprocess.Popen[str]:
    """Start a process that writes ``target`` until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_appears_meanwhile_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(PvMergeError, match=r"out: something else was put there meanwhile") as caught,
        new_folder(target) as work,
    ):
        (work / "result").write_text("ours")
        target.mkdir()
        (target / "theirs").write_text("theirs")
    assert (target / "theirs").read_text() == "theirs"
    (kept,) = [path for path in tmp_path.iterdir() if path.name.startswith("out.kept-")]
    assert (kept / "result").read_text() == "ours" and str(kept) in caught.value.message
    assert names(tmp_path) == ["out", kept.name]


def test_a_file_that_appears_meanwhile_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(PvMergeError, match="meanwhile"), new_folder(target):
        target.write_text("theirs")
    assert target.read_text() == "theirs"


def test_of_two_writers_the_later_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target) as work:
        with (
            pytest.raises(PvMergeError, match="another process is writing it now"),
            new_folder(target),
        ):
            pass
        (work / "a").write_text("first")
    assert (target / "a").read_text() == "first" and names(tmp_path) == ["out"]


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    process = writer(tmp_path / "out")
    try:
        with pytest.raises(PvMergeError, match="another process"), new_folder(tmp_path / "out"):
            pass
    finally:
        process.kill()
        process.wait()


def test_leftovers_of_a_killed_writer_are_removed_by_the_next(tmp_path: Path) -> None:
    neighbours = [".out.unfinished", ".out.more.abcdefgh.tmp", ".output.abcdefgh.tmp"]
    for name in neighbours:
        (tmp_path / name).mkdir()
    process = writer(tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(names(tmp_path)) == len(neighbours) + 2  # its work folder and its lock
    with new_folder(tmp_path / "out") as work:
        (work / "a").write_text("x")
    assert names(tmp_path) == sorted([*neighbours, "out"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = writer(tmp_path / "deep" / "out", f"HOLD = {HOLD!r}\n{COMMAND}")
    process.send_signal(number)
    assert process.wait(timeout=20) == 1
    assert names(tmp_path) == []


def test_a_lock_that_the_caller_holds(tmp_path: Path) -> None:
    with only_writer(tmp_path / "out"), new_folder(tmp_path / "out", held=True) as work:
        (work / "a").write_text("x")
    assert names(tmp_path) == ["out"]


def test_folders_that_were_made_on_the_way_go_with_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b" / "out"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_places_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("x")
    cases = {
        tmp_path / "file": "is a file; name a folder",
        tmp_path / "file" / "out": ".*file is a file; name a folder",
        tmp_path / ("n" * 300): "the name is too long",
        tmp_path / "link": "is a link to .*gone, which does not exist",
        tmp_path / "link" / "out": "is a link to .*gone, which does not exist",
        tmp_path / "full": "already holds files, which are never overwritten",
        Path("/proc/out"): "cannot be written",
    }
    for target, line in cases.items():
        with pytest.raises(PvMergeError, match=line) as caught, new_folder(target):
            pass
        assert "\n" not in caught.value.message
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(PvMergeError, match=r"lies in .*base, which is read"):
        refuse_existing(base / "merged", apart_from=[base])
    monkeypatch.chdir(base)
    with pytest.raises(PvMergeError, match="is the current folder"), new_folder(Path()):
        pass
    base.rmdir()
    with (
        pytest.raises(PvMergeError, match="current folder has been deleted"),
        new_folder(Path("out")),
    ):
        pass


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    line = r"out: cannot be written: the disk is full"
    with pytest.raises(PvMergeError, match=line), new_folder(tmp_path / "out"):
        Path("/dev/full").write_text("x")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "line"),
    [(errno.EROFS, "the file system is read-only"), (errno.EACCES, "permission denied")],
)
def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, number: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise OSError(number, os.strerror(number), str(tmp_path / ".out.x"))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with (
        pytest.raises(PvMergeError, match=f"out: cannot be written: {line}"),
        new_folder(tmp_path / "out"),
    ):
        pass
    assert names(tmp_path) == []


def test_an_input_that_cannot_be_read_is_the_one_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(PvMergeError, match="gone: no such file"), new_folder(tmp_path / "out"):
        (tmp_path / "gone").read_bytes()


def test_json_on_a_full_disk_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(PvMergeError, match=r"a\.json: cannot be written: it is a folder"):
        write_json(tmp_path / "a.json", {})
    assert names(tmp_path) == ["a.json"]


def test_the_lock_ends_with_its_process_within_moments(tmp_path: Path) -> None:
    process = writer(tmp_path / "out")
    process.kill()
    process.wait()
    start = time.monotonic()
    with new_folder(tmp_path / "out"):
        pass
    assert time.monotonic() - start < 5
