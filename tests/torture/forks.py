"""Commands in forked copies of this process: imported once, killed as often as one likes."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 120.0
"""Seconds after which a command hangs."""

WAITING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; negative is the signal that it died of."""
    seconds: float
    said: str
    hung: bool = False

    @property
    def problem(self) -> str | None:
        """Why this is no way to end, if so."""
        if self.hung:
            return "it hangs"
        if "Traceback" in self.said:
            return f"a traceback: {self.said}"
        lines = [line for line in self.said.splitlines() if line.startswith("Error: ")]
        return f"{len(lines)} lines of errors" if len(lines) > 1 else None


def run(
    main: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    place: Path,
    *,
    number: signal.Signals | None = None,
    after: float = 0.0,
    prepare: Callable[[], None] = lambda: None,
) -> Ended:
    """Run ``main(arguments)`` in a fork that works in ``place``, and send it a signal after a while.

    It has a folder of its own for temporary files, ``place/tmp``; ``prepare`` is called in the fork.
    """
    log = place / "log"
    (place / "tmp").mkdir(exist_ok=True)
    log.touch()
    start = time.monotonic()
    # What comes before the copy is a process of its own waits until it is one.
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
    pid = os.fork()
    if pid == 0:
        _child(main, arguments, place, log, prepare)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING)
    status, hung = None, False
    if number is not None:
        status = _wait(pid, start + after)
        if status is None:
            os.kill(pid, number)
    if status is None:
        status = _wait(pid, start + after + LIMIT)
    if status is None:
        hung = True
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    said = log.read_text(errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - start, said, hung)


def in_a_copy(function: Callable[[], None]) -> None:
    """Call ``function`` in a fork, which imports what it likes, and wait for it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError("a part of it failed")


def _wait(pid: int, until: float) -> int | None:
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, 0.002))


def _child(
    main: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    place: Path,
    log: Path,
    prepare: Callable[[], None],
) -> None:
    """Be the command, as a console script is, and never return."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ["TMPDIR"] = str(place / "tmp")
        import tempfile

        tempfile.tempdir = None
        os.chdir(place)
        prepare()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING)
        except KeyboardInterrupt:  # before it began, as while Python itself starts
            sys.exit(1)
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
