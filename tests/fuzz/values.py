"""Inputs: documents of the right form with something wrong, and texts and bytes with something wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

import yaml
from hypothesis import strategies as st

Make = Callable[[Random], bytes]

WORDS = (
    "", " ", ".", "..", "/", "../../x", "/etc/passwd", "~", "~root/x", "a/b@c", "a+b", "a+b+c", "x" * 300, "x" * 5000,
    "\0", "\x1b[2J", "\n", "a\nb", "\u202e", "\u2028", "é", "\U0001f600", "\ud800", "NaN", "nan", ".nan", ".inf", "1e999",
    "0x_", "1_0", "1:30:00", "2020-01-01", "yes", "null", "~", "<<", "=", "!!int x", "*a", "&a", "{", "[", "%s%n", "{0}",
    "(a+)+$", "(" * 50, "[", "a{1,99999}", ".*" * 20, "helpful", "positive", "vector", "lora", "cpu", "F32", "BF16", "base",
    "__class__", "__proto__", "constructor", "C:\\x", "\\\\host\\x", "file:///etc/passwd", "http://[::1", "-", "--", "-o",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e39, -1e39, 1e308, float("inf"), float("-inf"), float("nan"),
           2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 2**70, 10**400)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [{}],
    {"a": {"b": [1]}},
)
SNIPPETS = (
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"  ", b"{", b"}", b"[", b"]", b'"', b"'", b":",
    b"- ", b"? ", b"#", b",", b"&a ", b"*a", b"!!int ", b"!!python/object:os.system ", b"<<: ", b"---\n", b"...\n",
    b"%YAML 9.9\n", b"|", b">", b"\\ud800", b"\\u0000", b"1e999", b"NaN", b"Infinity", b"-", b"\x85", b"\xe2\x80\xa8",
)  # fmt: skip


def odd(random: Random) -> Any:
    """Return a value that is not expected."""
    kind = random.randrange(8)
    if kind < 3:
        return random.choice(WORDS)
    if kind < 5:
        return random.choice(NUMBERS)
    if kind < 7:
        return copy.deepcopy(random.choice(OTHERS))
    deep: Any = "x"
    for _ in range(random.choice((3, 90, 120))):
        deep = [deep] if random.random() < 0.5 else {"a": deep}
    return deep


def _places(document: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            keys = list(item) if isinstance(item, dict) else list(range(len(item)))
            found += [(item, key) for key in keys]
            waiting += [item[key] for key in keys]
    return found


def changed(document: Any, random: Random) -> Any:
    """Return a copy of a document with one to three things changed."""
    whole = [copy.deepcopy(document)]
    for _ in range(random.choice((1, 1, 2, 3))):
        home, key = random.choice(_places(whole))
        kind = random.randrange(10)
        if kind < 6:
            home[key] = odd(random)
        elif kind < 7 and home is not whole:
            del home[key]
        elif kind < 8 and isinstance(home, dict):
            home[str(random.choice(WORDS))] = odd(random)
        elif kind < 9:
            home[key] = [home[key]] * random.randrange(4)
        else:
            home[key] = copy.deepcopy(random.choice(_places(whole))[0])
        if not _places(whole):
            break
    return whole[0]


def spoilt(text: bytes, random: Random) -> bytes:
    """Return a text with one to four of its bytes or lines changed."""
    data = bytearray(text)
    for _ in range(random.randrange(1, 5)):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(6)
        if kind == 0:
            data[place:place] = random.choice(SNIPPETS) * random.choice((1,) * 30 + (2, 40, 5000))
        elif kind == 1 and data:
            data[place % len(data)] = random.randrange(256)
        elif kind == 2:
            del data[place : place + random.choice((1, 2, 8, 100))]
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            lines = bytes(data).splitlines(keepends=True)
            if lines:
                line = random.choice(lines)
                lines.insert(random.randrange(len(lines) + 1), line)
                data = bytearray(b"".join(lines))
        else:
            data[place:place] = bytes(data[:200])
    return bytes(data)


def as_json(document: Any) -> bytes:
    """Return a document as JSON, lone surrogates and all."""
    return json.dumps(document).encode()


def as_yaml(document: Any) -> bytes:
    """Return a document as YAML."""
    return yaml.safe_dump(document, allow_unicode=False).encode()


def of(document: Any, write: Callable[[Any], bytes] = as_json) -> Make:
    """Return what makes inputs like ``document``: changed as values, as text, or both."""
    whole = write(document)

    def make(random: Random) -> bytes:
        kind = random.randrange(10)
        if kind < 6:
            try:
                return as_json(changed(document, random))
            except (ValueError, RecursionError):
                return b"{"
        if kind < 9:
            return spoilt(whole, random)
        return spoilt(as_json(changed(document, random)), random)

    return make


def lines_of(*rows: Any) -> Make:
    """Return what makes files of JSON lines like ``rows``."""

    def make(random: Random) -> bytes:
        texts = [of(row)(random) if random.random() < 0.5 else as_json(row) for row in rows]
        return b"\n".join(texts)

    return make


def text_of(*texts: bytes) -> Make:
    """Return what makes texts like these."""
    return lambda random: spoilt(random.choice(texts), random)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


def strategy(make: Make) -> st.SearchStrategy[bytes]:
    """Return hypothesis's strategy for what ``make`` makes, and for any JSON and any bytes."""
    seeded = st.integers(0, 2**62).map(lambda number: make(Random(number)))
    return st.one_of(seeded, seeded, seeded, seeded, JSON.map(as_json), st.binary(max_size=200))
