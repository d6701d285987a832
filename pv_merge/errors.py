"""The one error that users see: what, where, and the likely cause, in one line."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

import click


class Topic(StrEnum):
    """What a line is about, for code that must tell lines apart; none may read their wording."""

    GENERAL = "general"
    """Nothing that code tells apart."""
    SYNTAX = "syntax"
    """A file's text: YAML, JSON, keys and the types of their values."""
    FOLDER = "folder"
    """A folder or file that is not there, or not what it should be."""
    BASE = "base"
    """Whether something was made from, or fits, the base."""
    POLARITY = "polarity"
    """Which side an input is."""
    ETA = "eta"
    """An eta that is missing, disagrees or is not finite."""
    CONTROL = "control"
    """A control of the merge: its value, or that it does not apply."""
    PROTECTED = "protected"
    """A negative eta of a protected preference."""
    FINITE = "finite"
    """Weights that are not finite."""
    DTYPE = "dtype"
    """The dtype that inputs are read in, before anything is subtracted."""
    OUTPUT = "output"
    """How merged weights are written; nothing that an adapter has."""
    MERGEKIT = "mergekit"
    """Stock mergekit alone; no other way to merge or export is concerned."""
    COMMIT = "commit"
    """The commit of a push to the Hub."""
    LICENCE = "licence"
    """A licence that is unknown or in conflict."""


class PvMergeError(click.ClickException):
    """A problem that the user can mend; ``topic`` says what it is about.

    It is a ``ClickException``, so that every click command that it reaches, ``mergekit-yaml``
    among them, prints one line and exits with 1. It is not a ``ValueError``, since pydantic would
    then wrap it in a report of several lines. What it quotes of a file or a name can neither steer
    a terminal nor flood it.
    """

    def __init__(self, message: str, topic: Topic = Topic.GENERAL) -> None:
        super().__init__(_presentable(message))
        self.topic = topic


LINE = 2000
"""Characters of a line of a message."""
LINES = 100
"""Lines of a message."""


def _presentable(message: str) -> str:
    """Return a message with control and half characters escaped, and its middle left out if long."""
    lines = [
        line if len(line) <= LINE else f"{line[: LINE // 2]} … {line[-LINE // 2 :]}"
        for line in message.split("\n")
    ]
    if len(lines) > LINES:
        lines[LINES:] = [f"       … and {len(lines) - LINES} more"]
    return "\n".join("".join(map(_shown, line)) for line in lines)


def _shown(char: str) -> str:
    odd = char != "\t" and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
    return ascii(char)[1:-1] if odd else char


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's text, or what kind of error it is."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


def harmless_text(text: str) -> str:
    """Return foreign text without the control characters that could steer a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the closest of ``known``, or the whole list of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    if len(names) <= 12:
        return f"; known: {', '.join(names)}"
    return ""


def unknown_keys(given: Iterable[object], known: Iterable[str], where: str) -> list[str]:
    """Return one line for each key of ``given`` that is not in ``known``."""
    names = set(known)
    return [
        f"{where}: unknown key {str(key)!r}{did_you_mean(str(key), names)}"
        for key in given
        if key not in names
    ]


def raise_all(problems: Sequence[str], topic: Topic = Topic.GENERAL) -> None:
    """Raise one ``PvMergeError`` that lists every problem, a line each; return if there is none."""
    if problems:
        raise PvMergeError("\n       ".join(problems), topic)


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the file system takes",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EEXIST: "something of this name exists",
    errno.ENOTEMPTY: "something of this name exists",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.EIO: "the disk failed",
    errno.EXDEV: "it would have to be moved to another file system",
    errno.EBUSY: "something else uses it",
}
"""What the operating system's errors mean, as they stand in a line."""


def explain_os_error(error: OSError, path: object, verb: str = "written") -> PvMergeError:
    """Return the one line for an error of the operating system about ``path``.

    ``verb`` says what was tried: ``read`` or ``written``.
    """
    if error.errno == errno.ENOENT:
        return PvMergeError(f"{path}: {_absent(Path(str(path)), verb)}", Topic.FOLDER)
    reason = _REASONS.get(error.errno or 0) or error.strerror or type(error).__name__
    return PvMergeError(f"{path}: cannot be {verb}: {reason}", Topic.FOLDER)


@contextmanager
def os_errors(path: object, verb: str = "written") -> Iterator[None]:
    """Turn what the operating system refuses in this block into one line about ``path``.

    An ``OSError`` without a number is not the operating system's, and passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise explain_os_error(error, path, verb) from error


def _absent(path: Path, verb: str) -> str:
    try:
        Path.cwd()
    except FileNotFoundError:
        return f"cannot be {verb}: the current folder has been deleted; cd to another"
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            what = "is" if place == path else f"{place} is"
            return f"{what} a link to {place.readlink()}, which does not exist"
    return "cannot be written: a folder on the way is gone" if verb == "written" else "no such file"
