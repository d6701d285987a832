"""Things of one kind by name: ours, and those that another package brings.

Another package says in its ``pyproject.toml``, under the entry points of the registry's group,
``name = "module:attribute"``; a script calls ``register``. Ours are listed in the same form, and
nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from pv_merge.errors import PvMergeError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """What is known under a name."""

    def __init__(self, what: str, group: str, ours: Mapping[str, str]) -> None:
        self.what, self.group = what, group
        self._ours = dict(ours)
        self._registered: dict[str, T] = {}

    @cached_property
    def _others(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    @property
    def names(self) -> list[str]:
        """Every name: ours in the order of the list, then those of other packages and scripts."""
        return list(dict.fromkeys([*self._ours, *self._others, *self._registered]))

    def register(self, name: str, thing: T) -> None:
        """Add a thing. Raises ``PvMergeError`` if the name is taken."""
        if name in self.names:
            raise PvMergeError(f"{self.what} {name}: this name is taken")
        self._registered[name] = thing

    def forget(self, name: str) -> None:
        """Take out what ``register`` added."""
        self._registered.pop(name, None)

    def get(self, name: str) -> T:
        """Return what has a name. Raises ``PvMergeError`` if nothing has, or it cannot be loaded."""
        if name in self._registered:
            return self._registered[name]
        if name in self._ours:
            module, _, attribute = self._ours[name].partition(":")
            ours: T = getattr(importlib.import_module(module), attribute)
            return ours
        if name not in self._others:
            raise PvMergeError(f"unknown {self.what} {name!r}{did_you_mean(name, self.names)}")
        entry = self._others[name]
        try:
            theirs: T = entry.load()
        except Exception as error:  # another package's code, which may raise anything
            reason = str(error).split("\n")[0] or type(error).__name__
            raise PvMergeError(
                f"{self.what} {name}: {entry.value} cannot be loaded ({reason}); is the package "
                "that brings it whole?"
            ) from None
        return theirs

    def all(self) -> dict[str, T]:
        """Return every thing by name, loaded."""
        return {name: self.get(name) for name in self.names}
