"""A command that is told to end cleans up, as it does after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = ("SIGTERM", "SIGHUP")
"""What a scheduler, ``kill``, and a terminal that closes send; Windows has no SIGHUP."""


def interrupt_on_signals() -> Callable[[], None]:
    """Make these signals raise ``KeyboardInterrupt``; return what restores them.

    Only the first counts, so that a second does not cut the cleaning up short. One that is ignored,
    as under ``nohup``, stays ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _interrupt)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
