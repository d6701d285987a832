"""One input to one reader: what may leave it, how long it may take, and what it may touch."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import click

LIMIT = 2.0
"""Seconds that one input may take."""
LONGEST = 210_000
"""Characters of a message."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "socket.connect",
    "os.exec",
    "ctypes.dlopen",
    "marshal.loads",
)
PLACES = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.rename": 2, "os.symlink": 2, "os.link": 2,
          "os.truncate": 1, "os.chmod": 1}  # fmt: skip
"""Events that change a folder, with the number of paths that they name."""


class FoundError(Exception):
    """What a reader must not do."""


class _TooSlow(BaseException):
    pass


class _Watch:
    """Notes what is touched outside the work folder while an input is read."""

    def __init__(self) -> None:
        self.roots: tuple[str, ...] = ()
        self.found: list[str] = []
        self.installed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.roots or threading.current_thread() is not threading.main_thread():
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            self._look(event, arguments[0])
        elif event in PLACES:
            for path in arguments[: PLACES[event]]:
                self._look(event, path)
        elif event in FORBIDDEN:
            self.found.append(f"{event} {arguments!r}"[:200])
        elif event == "subprocess.Popen" and arguments[0] != sys.executable:
            self.found.append(f"{event} {arguments[:2]!r}"[:200])

    def _look(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (resolve() asks the disk)
            if not place.startswith(self.roots):
                self.found.append(f"{event} {place}"[:200])


_WATCH = _Watch()


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Raise ``FoundError`` where the block takes too long, or changes anything outside ``folder``."""
    if not _WATCH.installed:
        sys.addaudithook(_WATCH)
        _WATCH.installed = True
    caches = [os.environ[key] for key in ("PV_MERGE_CACHE", "HF_DATASETS_CACHE")]
    _WATCH.found.clear()

    def slow(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, slow)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    _WATCH.roots = (str(folder.resolve()), *caches, os.devnull)
    try:
        yield
    except _TooSlow:
        raise FoundError(f"takes more than {LIMIT:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _WATCH.roots = ()
        signal.signal(signal.SIGALRM, before)
    if _WATCH.found:
        raise FoundError(f"touches {_WATCH.found[0]}")


def warm(target: Any, folder: Path) -> None:
    """Let a reader import what it imports, which takes its time, once."""
    for number in range(30):
        with suppress(Exception):
            target.parse(folder, target.make(Random(f"warm {number}")))


def read(parse: Callable[[Path, bytes], object], folder: Path, data: bytes) -> tuple[bool, float]:
    """Give ``data`` to a reader; return whether it was taken, and the seconds.

    Raises ``FoundError`` for anything but an answer or a line of ours.
    """
    start = time.perf_counter()
    taken = True
    try:
        with guarded(folder):
            parse(folder, data)
    except click.ClickException as error:
        taken = False
        message = error.format_message()
        odd = [c for c in message if (ord(c) < 32 or 0x7F <= ord(c) < 0xA0) and c not in "\n\t"]
        if not message.strip() or len(message) > LONGEST or odd:
            raise FoundError(
                f"a message that is empty, too long or steers: {message[:100]!r}"
            ) from error
    except (FoundError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise FoundError(f"{type(error).__name__}: {str(error)[:200]}") from error
    return taken, time.perf_counter() - start
