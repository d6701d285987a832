"""Which files a block opens, as the kernel sees it: whoever opens them, Python or a library."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPENED, NONBLOCK = 0x20, os.O_NONBLOCK


@contextmanager
def opened(root: Path) -> Iterator[Counter[str]]:
    """Yield a count that holds, after the block, how often each file under ``root`` was opened."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(NONBLOCK)
    assert queue >= 0
    folders = {}
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folders[libc.inotify_add_watch(queue, os.fsencode(folder), OPENED)] = folder
    counts: Counter[str] = Counter()
    try:
        yield counts
        for watch, name in _events(queue):
            path = folders[watch] / name
            if name and not path.is_dir():
                counts[str(path.relative_to(root))] += 1
    finally:
        os.close(queue)


def _events(queue: int) -> Iterator[tuple[int, str]]:
    while True:
        try:
            data = os.read(queue, 1 << 16)
        except BlockingIOError:
            return
        while data:
            watch, _, _, length = struct.unpack_from("iIII", data)
            yield watch, os.fsdecode(data[16 : 16 + length].rstrip(b"\0"))
            data = data[16 + length :]
