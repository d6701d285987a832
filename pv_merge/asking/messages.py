"""Messages as they go to any model that is asked."""

from __future__ import annotations

from collections.abc import Sequence

Messages = tuple[tuple[str, str], ...]
"""(role, text) of each message."""


def without_system(messages: Messages) -> Messages:
    """Return messages whose system text opens the first of the user's."""
    if not messages or messages[0][0] != "system":
        return messages
    system, first, *rest = messages
    return ((first[0], f"{system[1]}\n\n{first[1]}"), *rest)


def estimated_tokens(messages: Sequence[tuple[str, str]]) -> int:
    """Return about how many tokens messages have: a token for four characters, four a message."""
    return sum(len(text) // 4 + 4 for _, text in messages)
