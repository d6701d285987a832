"""A command that is told to end cleans up, and says so in one word, whenever that comes."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import click

SIGNALS = ("SIGTERM", "SIGHUP")
"""What a scheduler, ``kill``, and a terminal that closes send; Windows has no SIGHUP."""
SECONDS = 1.0
"""What fails so soon after an interrupt failed because of it."""
AGAIN = 0.05
"""Seconds after which an interrupt that was lost comes again."""

_interrupted_at = float("-inf")


class Program(click.Group):
    """A program's commands, which any of these signals, and Ctrl-C, end as ``KeyboardInterrupt``."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a library's own error for an interrupt is the interrupt."""
        ctx.call_on_close(interrupt_on_signals())
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception:
            # Compiled code that is interrupted raises what it likes, such as an ImportError.
            if time.monotonic() - _interrupted_at < SECONDS:
                raise KeyboardInterrupt from None
            raise

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Be the console script, before and after whose command an interrupt says nothing."""
        try:
            return super().__call__(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(1)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt_on_signals() -> Callable[[], None]:
    """Make these signals raise ``KeyboardInterrupt``; return what restores them.

    Of those in ``SIGNALS`` only the first counts, so that a second does not cut the cleaning up
    short. One that is ignored, as under ``nohup``, stays ignored.
    """
    before = {}
    handlers: list[tuple[str, Any, Any]] = [
        ("SIGINT", signal.default_int_handler, _interrupt),
        *((name, signal.SIG_DFL, _interrupt_once) for name in SIGNALS),
    ]
    if threading.current_thread() is threading.main_thread():
        for name, usual, handler in handlers:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == usual:
                before[number] = signal.signal(number, handler)
    hook, again = sys.unraisablehook, list[threading.Timer]()
    if before:
        sys.unraisablehook = partial(_unraisable, hook, again)

    def restore() -> None:
        sys.unraisablehook = hook
        for timer in again:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted_at
    _interrupted_at = time.monotonic()
    raise KeyboardInterrupt


def _unraisable(usual: Callable[[Any], Any], timers: list[threading.Timer], said: Any) -> None:
    """Interrupt again where the interrupt came into code whose exceptions nobody gets."""
    if not issubclass(said.exc_type, KeyboardInterrupt):
        usual(said)
        return
    timer = threading.Timer(AGAIN, _thread.interrupt_main)
    timer.daemon = True
    timers.append(timer)
    timer.start()


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    _interrupt(number, frame)
