"""For mkdocstrings: the ``>>>`` examples of a docstring are code, not text with brackets in it."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?m)(?:^>>>.*\n?)(?:^(?!>>>)\S.*\n?|^>>>.*\n?|^ +.*\n?)*")


class Doctests(griffe.Extension):
    """Puts each run of example lines into a fenced block."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = EXAMPLE.sub(
                lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text
            )
