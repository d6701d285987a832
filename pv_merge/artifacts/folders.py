"""Folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that is renamed to it when the block succeeds.

    Raises ``PvMergeError`` if ``target`` already holds something, unless ``replace``. When the
    block raises, the temporary folder is removed and ``target`` is as it was.
    """
    refuse_existing(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o777 & ~current_umask())
        yield work
        readable(work)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.replace(old / "replaced")
            work.replace(target)
            shutil.rmtree(old)
        else:
            work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(target: Path, *, replace: bool = False) -> None:
    """Raise ``PvMergeError`` if ``target`` is a file, or a folder that is not empty."""
    if target.exists() and not target.is_dir():
        raise PvMergeError(f"{target}: is a file; name a folder that does not exist yet")
    if not replace and target.is_dir() and any(target.iterdir()):
        raise PvMergeError(
            f"{target}: already holds files, which are never overwritten; name another"
        )


def readable(folder: Path) -> None:
    """Give the folder's files the modes that the umask allows; safetensors writes for the owner alone."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~current_umask())


def current_umask() -> int:
    """Return the process's umask (it can only be read by setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON by way of a temporary file and a rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
