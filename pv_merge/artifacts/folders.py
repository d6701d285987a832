"""Folders that appear whole or not at all, one writer at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pv_merge.errors import PvMergeError, explain_os_error, os_errors


@contextmanager
def new_folder(target: Path, *, held: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that is renamed to it when the block succeeds.

    Nobody else writes ``target`` meanwhile: its name is locked (``only_writer``; ``held`` says that
    the caller has the lock). Raises ``PvMergeError`` if ``target`` holds something, before the
    block or after it: what appeared meanwhile is not touched, and the result is kept beside it
    under the name that the error says. When the block raises, nothing of it is left. Errors of the
    operating system in the block are one line.
    """
    refuse_existing(target)
    place = _resolved(target)
    made = [folder for folder in place.parents if not folder.exists()]
    try:
        with os_errors(target):
            place.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if held else only_writer(target):
            refuse_existing(target)
            _remove_leftovers(place)
            with _working(target, place) as work:
                yield work
    finally:
        for folder in made:
            with suppress(OSError):  # it holds the result
                folder.rmdir()


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Hold the name ``target`` for this writer; ``PvMergeError`` where another one has it.

    The operating system drops the lock when the process ends, however it ends.
    """
    from filelock import FileLock, Timeout

    place = _resolved(target)
    path = place.with_name(f".{place.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        with os_errors(target):
            lock.acquire()
    except Timeout:
        with os_errors(target):  # the library waits, too, where no file can be made
            os.close(os.open(path, os.O_RDWR | os.O_CREAT))
        raise PvMergeError(
            f"{target}: another process is writing it now; wait for that one, or name another folder"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held, so that no other holder's file is removed
        lock.release()
        if os.name == "nt":  # an open file cannot be removed there, nor one that another has open
            with suppress(OSError):
                path.unlink()


@contextmanager
def _working(target: Path, place: Path) -> Iterator[Path]:
    with os_errors(target):
        work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        try:
            work.chmod(0o777 & ~current_umask())
            yield work
            readable(work)
        except OSError as error:
            if error.errno is None:
                raise
            raise _explained(error, target, work) from error
        _move(work, target, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _explained(error: OSError, target: Path, work: Path) -> PvMergeError:
    """Return the line about ``target``, or about the file elsewhere that the error names."""
    named = Path(str(error.filename)) if error.filename is not None else work
    inside = work == named or work in named.parents
    return explain_os_error(error, target if inside else named, "written" if inside else "used")


def _move(work: Path, target: Path, place: Path) -> None:
    if os.name == "nt" and place.is_dir():
        with suppress(OSError):
            place.rmdir()  # an empty one, which POSIX replaces by itself
    try:
        work.rename(place)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(prefix=f"{place.name}.kept-", dir=place.parent))
        kept.rmdir()
        work.rename(kept)
        raise PvMergeError(
            f"{target}: something else was put there meanwhile, or it cannot be replaced "
            f"({error.strerror}); it was left as it is, and the result is in {kept}"
        ) from None


def _remove_leftovers(place: Path) -> None:
    """Remove what killed writers of ``place`` left; whoever has its lock is the only living one."""
    own = re.compile(rf"\.{re.escape(place.name)}\.[A-Za-z0-9_]{{8}}\.tmp")
    with suppress(OSError):
        for path in list(place.parent.iterdir()):
            if own.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def refuse_existing(target: Path, *, apart_from: Iterable[Path] = ()) -> None:
    """Raise ``PvMergeError`` unless ``target`` is a name for a new folder, or an empty folder.

    It may not lie in one of the folders ``apart_from``, which are read.
    """
    with os_errors(target):
        for part in (target, *target.parents):
            what = "is" if part == target else f"{part} is"
            if part.is_symlink() and not part.exists():
                raise PvMergeError(
                    f"{target}: {what} a link to {part.readlink()}, which does not exist; name "
                    "another folder"
                )
            if part.exists() and not part.is_dir():
                raise PvMergeError(
                    f"{target}: {what} a file; name a folder that does not exist yet"
                )
        place = _resolved(target)
        if place == Path.cwd():
            raise PvMergeError(f"{target}: is the current folder; name a new one in it")
        for folder in apart_from:
            if folder.resolve() in (place, *place.parents):
                raise PvMergeError(
                    f"{target}: lies in {folder}, which is read; name a folder elsewhere"
                )
        if target.is_dir() and any(target.iterdir()):
            raise PvMergeError(
                f"{target}: already holds files, which are never overwritten; name another"
            )


def _resolved(target: Path) -> Path:
    with os_errors(target):
        return target.resolve()


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
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 by way of a temporary file and a rename."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a file that becomes ``path`` when the block succeeds; else nothing is left."""
    temporary = path.with_name(f".{path.name}.tmp")
    with os_errors(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
