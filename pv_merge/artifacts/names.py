"""Names that become folders, files, or parts of a command line: what may stand in them."""

from __future__ import annotations

from unicodedata import category

from pv_merge.errors import PvMergeError

LONGEST = 100
"""Characters of a name: several of them make the name of one folder."""
_RESERVED = "/\\,="


def name_problem(name: str, what: str = "the name of a preference") -> str | None:
    """Return why ``name`` cannot be ``what``, or None if it can.

    It names folders (a grid's, a shelf's), files (a GGUF's) and terms (``NAME=ETA,NAME=ETA``), so
    it has no separators, no control characters, is not only dots, and is short.
    """
    if not name.strip(" ."):
        return f"{name!r} cannot be {what}: it is empty, or only dots"
    if len(name) > LONGEST:
        return f"{name[:20]!r}… cannot be {what}: it has {len(name)} characters, at most {LONGEST}"
    if any(char in _RESERVED or category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        return f"{name!r} cannot be {what}: no / \\ , = and no control characters may stand in it"
    if name != name.strip():
        return f"{name!r} cannot be {what}: it begins or ends with a space"
    return None


def checked_name(name: str, what: str = "the name of a preference") -> str:
    """Return ``name``; ``PvMergeError`` where it cannot be ``what``."""
    problem = name_problem(name, what)
    if problem is not None:
        raise PvMergeError(problem)
    return name
