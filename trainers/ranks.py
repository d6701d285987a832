"""Several processes training together: who speaks, who writes, and what they tell one another.

In a single process each function is the plain thing. Rank 0 is the one that writes and prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from pv_merge.errors import PvMergeError

T = TypeVar("T")


def rank() -> int:
    """Return this process's rank, from the launcher's environment; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes that train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(value: T) -> T:
    """Return rank 0's ``value`` on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    shared: T = box[0]
    return shared


def gather(value: T) -> list[T]:
    """Return every rank's ``value``, in order of rank, on every rank."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def on_main(function: Callable[[], T]) -> T:
    """Return ``function()`` of rank 0 on every rank; if it raises a ``PvMergeError``, so do all."""
    if world_size() == 1:
        return function()
    result: T | None = None
    problem = None
    if rank() == 0:
        try:
            result = function()
        except PvMergeError as error:
            problem = error.message
    result, problem = share((result, problem))
    if problem is not None:
        raise PvMergeError(problem)
    return result  # type: ignore[return-value]


def wait() -> None:
    """Return once every rank is here."""
    share(None)
