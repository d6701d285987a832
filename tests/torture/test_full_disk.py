"""A disk that is full from the n-th file on, for each n: one line, and nothing half-written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pv_merge.cli import main

from eval_tiny import make_recipe

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Disk:
    """Lets so many files be opened for writing below a folder, then is full."""

    folder = ""
    left = 0
    refused = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder and event == "open" and isinstance(arguments[0], str | os.PathLike):
            path, flags = os.fspath(arguments[0]), arguments[2]
            if path.startswith(self.folder) and isinstance(flags, int) and flags & WRITES:
                self.left -= 1
                if self.left < 0:
                    self.refused += 1
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


_DISK = _Disk()


@contextmanager
def full_after(count: int, folder: Path) -> Iterator[_Disk]:
    if not hasattr(_DISK, "installed"):
        sys.addaudithook(_DISK)
        _DISK.installed = True  # type: ignore[attr-defined]
    _DISK.folder, _DISK.left, _DISK.refused = str(folder), count, 0
    try:
        yield _DISK
    finally:
        _DISK.folder = ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_recipe(home)
    return home


def _run(home: Path, out: Path) -> list[str]:
    return ["run", str(home / "recipe.yml"), str(out)]


def _grid(home: Path, out: Path) -> list[str]:
    return [*_run(home, out), "--eta", "polite=0,1"]


def _extract(home: Path, out: Path) -> list[str]:
    sides = [str(home / f"polite-{side}") for side in ("positive", "negative")]
    return ["extract", *sides, "--base", str(home / "base"), "--name", "polite", "-o", str(out)]


def _low_rank(home: Path, out: Path) -> list[str]:
    return [*_extract(home, out), "--form", "low-rank", "--rank", "2"]


def _sweep(home: Path, out: Path) -> list[str]:
    pairs = ["--pairs", f"polite={home / 'pairs.jsonl'}"]
    return ["sweep", str(home / "recipe.yml"), "--eta", "polite=0,1", *pairs, "-o", str(out)]


def _calibrate(home: Path, out: Path) -> list[str]:
    pairs = ["--pairs", f"polite={home / 'pairs.jsonl'}", "--range", "polite=0:1:0.5"]
    pairs += ["--range", "brief=0:0:1"]
    return ["calibrate", str(home / "recipe.yml"), "--maximize", "polite", *pairs, "-o", str(out)]


def _export(home: Path, out: Path) -> list[str]:
    return ["export", str(home / "recipe.yml"), "--to", "peft", "--rank", "2", "-o", str(out)]


COMMANDS = [_run, _grid, _extract, _low_rank, _export]
IN_PLACE = [_sweep, _calibrate]


def one_line(result: Result) -> None:
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.exception
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "the disk is full" in errors[0], result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left(
    command: Callable[[Path, Path], list[str]], home: Path, tmp_path: Path
) -> None:
    for count in range(100):
        with full_after(count, tmp_path) as disk:
            result = CliRunner().invoke(main, command(home, tmp_path / "out"))
        if not disk.refused:
            break
        one_line(result)
        assert not list(tmp_path.iterdir()), count
    assert result.exit_code == 0, result.output
    assert count > 2 and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", IN_PLACE)
def test_what_is_measured_stays_and_the_next_call_goes_on(
    command: Callable[[Path, Path], list[str]], home: Path, tmp_path: Path
) -> None:
    for count in (
        0,
        1,
        2,
        3,
        5,
        8,
        12,
        100,
    ):  # in one folder: each goes on where the last was stopped
        with full_after(count, tmp_path) as disk:
            result = CliRunner().invoke(main, command(home, tmp_path / "out"))
        if not disk.refused:
            break
        one_line(result)
        assert not list(tmp_path.rglob(".*")), count
    assert result.exit_code == 0, result.output
    assert count > 2
