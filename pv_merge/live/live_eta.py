"""The one way in which eta of a model in memory is changed, whoever changes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self


class LiveEta(ABC):
    """Makes a live model base + Σ eta·phi, and the base again.

    ``set`` may be called any number of times, from one thread and not while the model runs. An
    exception within it, a ``KeyboardInterrupt`` among them, may leave the weights half-written;
    the next ``set`` or ``reset`` writes all of them. As a context manager it closes on exit.
    """

    @abstractmethod
    def set(self, etas: Mapping[str, float], /) -> None:
        """Write base + Σ eta·phi. Of a recipe, preferences that are not named have its own eta."""

    @abstractmethod
    def reset(self) -> None:
        """Make the model the base, bit for bit."""

    @abstractmethod
    def close(self) -> None:
        """Reset, take out of the model what was put into it, and let go of memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class StandingStill(LiveEta):
    """Leaves the model as it is, where only the base of a recipe, or no recipe, is measured."""

    def set(self, etas: Mapping[str, float], /) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
