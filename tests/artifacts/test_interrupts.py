"""An interrupt is one word, also where a library makes an error of its own of it, and at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from pv_merge.artifacts import interrupts
from pv_merge.artifacts.interrupts import Program
from pv_merge.errors import PvMergeError


@click.group(cls=Program)
def program() -> None:
    """As pv-merge and pv-train are."""


@program.command()
@click.argument("number", type=int)
@click.argument("error")
def imported(number: int, error: str) -> None:
    """As compiled code that is interrupted while it is imported."""
    try:
        if number:
            os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        pass
    raise {
        "library": ImportError("numba._devicearray failed to import"),
        "ours": PvMergeError("line"),
    }[error]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_librarys_error_for_an_interrupt_is_the_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    result = CliRunner().invoke(program, ["imported", str(int(number)), "library"])
    assert (result.exit_code, result.output) == (1, "\nAborted!\n")
    assert signal.getsignal(number) == before


def test_an_error_without_an_interrupt_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_interrupted_at", float("-inf"))
    assert isinstance(
        CliRunner().invoke(program, ["imported", "0", "library"]).exception, ImportError
    )


def test_what_we_say_of_an_interrupt_stays() -> None:
    result = CliRunner().invoke(program, ["imported", str(int(signal.SIGINT)), "ours"])
    assert (result.exit_code, result.output) == (1, "Error: line\n")


@program.command()
def lost() -> None:
    """As an interrupt that comes while something is freed."""

    class Freed:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    freed = Freed()
    del freed
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.01)


def test_an_interrupt_that_is_lost_comes_again() -> None:
    start, hook = time.monotonic(), sys.unraisablehook
    result = CliRunner().invoke(program, ["lost"])
    assert (result.exit_code, result.output) == (1, "\nAborted!\n")
    assert time.monotonic() - start < 10 and sys.unraisablehook is hook


ENDING = """
import atexit, os, signal
from pv_merge.cli import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
main(["--version"])
"""


def test_an_interrupt_after_the_end_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.stdout.startswith("pv-merge")
