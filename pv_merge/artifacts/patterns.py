"""Regular expressions that came with a file, matched by Python's ``re`` in bounded time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence

from pv_merge.data.value_words import shown
from pv_merge.errors import PvMergeError

SECONDS = 2.0
"""How long all patterns of one file may take."""
LONGEST = 2000
"""Characters of a pattern."""

_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEATS = re.compile(r"(?<!\()[*+?{]")
_CHILD = """
import json, re, sys
patterns, texts = json.load(sys.stdin)
json.dump([[bool(m := re.match(p, t)) and (m.groupdict().get("idx") or "") for t in texts]
           for p in patterns], sys.stdout)
"""

Table = dict[tuple[str, str], str | None]
"""By (pattern, text): None where it does not match, else its group ``idx``, or nothing."""


def match_table(patterns: Sequence[str], texts: Sequence[str], where: object) -> Table:
    """Return how each pattern matches at the start of each text.

    Raises ``PvMergeError`` for what is no regular expression, and where they take too long together:
    ``re`` cannot be interrupted, so those that might are matched in a process of their own.
    """
    for pattern in patterns:
        try:
            if len(pattern) > LONGEST:
                raise OverflowError(f"it has more than {LONGEST} characters")
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise PvMergeError(
                f"{where}: {shown(pattern)} is not a regular expression ({error})"
            ) from None
    return (_here if all(map(_quick, patterns)) else _apart)(patterns, texts, where)


def _quick(pattern: str) -> bool:
    """Return whether a match takes polynomial time of low degree, whatever the text."""
    return len(_REPEATS.findall(pattern)) <= 5 and not _REPEATED_GROUP.search(pattern)


def _here(patterns: Sequence[str], texts: Sequence[str], where: object) -> Table:
    found: Table = {}
    end = time.monotonic() + SECONDS
    for pattern in patterns:
        compiled = re.compile(pattern)
        for text in texts:
            match = compiled.match(text)
            found[pattern, text] = match and (match.groupdict().get("idx") or "")
        if time.monotonic() > end:
            raise _too_long(where)
    return found


def _apart(patterns: Sequence[str], texts: Sequence[str], where: object) -> Table:
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    given = json.dumps([patterns, texts])
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise _too_long(where) from None
    if done.returncode:
        raise PvMergeError(f"{where}: its regular expressions cannot be matched")
    rows = json.loads(done.stdout)
    return {
        (pattern, text): None if cell is False else cell
        for pattern, row in zip(patterns, rows, strict=True)
        for text, cell in zip(texts, row, strict=True)
    }


def _too_long(where: object) -> PvMergeError:
    return PvMergeError(
        f"{where}: its regular expressions take more than {SECONDS:g} seconds; name the modules plainly"
    )
