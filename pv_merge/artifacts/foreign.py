"""Models of other people as transformers loads them: whatever goes wrong in there is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pv_merge.errors import PvMergeError, first_line


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn whatever a foreign folder makes transformers raise into one line about ``what``."""
    try:
        yield
    except PvMergeError:
        raise
    except Exception as error:
        raise PvMergeError(f"{what} cannot be loaded ({first_line(error)})") from None
