"""Markdown from templates, in which a value cannot break out of its place.

Names, paths and texts come from whoever made a folder. Everything that a template puts in is
escaped, unless a filter of this module made it: Jinja's autoescape with Markdown's rules in the
place of HTML's.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pv_merge.hub.machine_paths import shown_command, shown_path

if TYPE_CHECKING:
    from jinja2 import Environment

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# An underscore between letters is no emphasis; names are full of them.
_SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK_START = re.compile(r"[-+=](?=[-+=\s]|$)|\d+(?=[.)](?:\s|$))")
_HIDDEN = ("Cc", "Cf", "Cs", "Co")


def plain(value: object) -> str:
    """Return a value as text of one line: spaces for line breaks, no control characters."""
    text = " ".join(str(value).split())
    return "".join(c for c in text if unicodedata.category(c) not in _HIDDEN)


def inline(value: Any) -> Markup:
    """Return a value as Markdown that shows it as it is, within one line; None as nothing."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup()
    text = _SPECIAL.sub(r"\\\g<0>", plain(value).translate(_HTML))
    start = _BLOCK_START.match(text)
    if start and start[0].isdigit():
        text = f"{start[0]}\\{text[start.end() :]}"
    elif start:
        text = f"\\{text}"
    return Markup(text)


def code(value: object) -> Markup:
    """Return a value as a code span; an empty one as nothing."""
    text = plain(value)
    if "|" in text:  # in a table it would end the cell, and a span has no escapes
        return Markup(f"<code>{inline(text)}</code>")
    if "`" in text:
        fence = "`" * (_longest_run(text) + 1)
        return Markup(f"{fence} {text} {fence}")
    return Markup(f"`{text}`" if text else "")


def fenced(value: object, language: str) -> Markup:
    """Return a text of many lines as a code block."""
    text = "".join(_visible(c) for c in str(value).replace("\r\n", "\n")).rstrip()
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{fence}{language}\n{text}\n{fence}")


def row(cells: Sequence[object]) -> Markup:
    """Return one row of a table."""
    return Markup(f"| {' | '.join(inline(cell) for cell in cells)} |")


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table."""
    return Markup("\n".join([row(head), row([Markup("---")] * len(head)), *map(row, rows)]))


def link(text: object, url: str) -> Markup:
    """Return a link; ``url`` is one of ours, whose parts were checked or quoted."""
    return Markup(f"[{inline(text)}]({url})")


def strong(value: object) -> Markup:
    """Return a value in bold letters."""
    return Markup(f"**{inline(value)}**")


def listed(values: Sequence[object]) -> Markup:
    """Return values in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    names = [inline(value) for value in values]
    return Markup(" and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])))


def yaml_scalar(value: object) -> Markup:
    """Return a text as a YAML value within braces."""
    import yaml

    text = yaml.safe_dump(
        [plain(value)], default_flow_style=True, allow_unicode=True, width=1 << 20
    )
    return Markup(text.strip()[1:-1])


@cache
def environment() -> Environment:
    """Return the environment of the card's templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("pv_merge.hub.card"),
        autoescape=True,
        finalize=inline,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "code": code,
        "fenced": fenced,
        "strong": strong,
        "listed": listed,
        "codes": lambda values: [code(value) for value in values],
        "as_is": Markup,
        "quoted": lambda text: Markup(json.dumps(plain(text), ensure_ascii=False)),
        "sh": lambda text: Markup(shlex.quote(plain(text))),
        "yaml": yaml_scalar,
        "shown": shown_path,
        "shown_command": lambda text: Markup(plain(shown_command(text))),
        "strongs": lambda values: [strong(value) for value in values],
    }
    found.globals |= {"table": table, "link": link}
    return found


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _visible(character: str) -> str:
    """Return a character of a code block; hidden ones, which may turn a text around, by number."""
    if character in "\n\t" or unicodedata.category(character) not in _HIDDEN:
        return character
    return f"\\u{ord(character):04x}"
