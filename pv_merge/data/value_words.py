"""A value that was read, in words: what it is, and how a message shows it."""

from __future__ import annotations


def shown(value: object) -> str:
    """Return a value as it may stand in a line: quoted, escaped, short."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else kind_of(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def kind_of(value: object) -> str:
    """Return what a value read from JSON or YAML is, in words."""
    if value is None:
        return "nothing"
    words = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return words.get(type(value), "a number")
