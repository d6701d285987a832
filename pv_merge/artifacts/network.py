"""What the Hub's errors mean, in one line: what, where, and the likely cause; never a token."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pv_merge.errors import PvMergeError

PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes that are worth another try."""
LONGEST_WAIT = 300.0
"""Seconds that a Retry-After may ask for before we give up instead."""

Result = TypeVar("Result")


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error, through whatever it was raised from."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and hasattr(response, "status_code"):
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds that the Hub asks to wait, where it says so in seconds."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            said = response.headers.get("Retry-After", "")
            return float(said) if re.fullmatch(r"\d+(\.\d+)?", said) else None
        error = error.__cause__ or error.__context__
    return None


def is_connection(error: BaseException | None) -> bool:
    """Return whether the connection failed, rather than that the Hub answered."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        # The client's HTTP library is httpx2 or httpx, by its version.
        if any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


def explain(error: BaseException, what: str) -> PvMergeError:
    """Return the line that says what went wrong with the repository ``what``."""
    from huggingface_hub import errors

    status = status_of(error)
    if isinstance(error, errors.RevisionNotFoundError):
        said = "the Hub has no such revision (404); is it a branch, tag or commit of it?"
    elif isinstance(error, errors.GatedRepoError):
        said = "is gated, and the token has no access (403); ask for it on the repository's page"
    elif status == 401:
        said = (
            "the Hub does not accept the token, or there is none and it wants one (401); log in "
            "with `hf auth login`, or set HF_TOKEN"
        )
    elif status == 403:
        said = (
            "the token may not do this (403); has it the role `write`, and does the namespace "
            "belong to you?"
        )
    elif status == 404:
        said = "the Hub has no such repository, or the token may not see it (404); is it misspelt?"
    elif status in (409, 412):
        said = (
            f"another change to it came in between ({status}), and nothing was overwritten; look "
            "at it, then try again"
        )
    elif status == 429:
        wait = retry_after(error)
        after = f"; it asks to wait {wait:g} seconds" if wait is not None else ""
        said = f"the Hub still limits the rate of requests after several tries (429){after}"
    elif status is not None and status >= 500:
        said = f"the Hub failed ({status}), after several tries too; try again later"
    elif isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        said = (
            "is no folder here, nor whole in the Hub's cache, and the Hub cannot be reached (is "
            "HF_HUB_OFFLINE set, or is there no network?)"
        )
    elif is_connection(error):
        said = "the connection to the Hub was lost or could not be made; is there a network?"
    elif status is not None:
        said = f"the Hub refused the request ({status}: {_first_line(error)})"
    else:
        said = f"{type(error).__name__}: {_first_line(error)}"
    return PvMergeError(f"{what}: {said}")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever the client raises into one line about ``what``."""
    try:
        yield
    except (PvMergeError, AssertionError, AttributeError, NameError, TypeError):
        raise  # ours, or a mistake of ours
    except Exception as error:  # the client lets errors of several libraries through
        raise explain(error, what) from error


def pause(seconds: float, status: int) -> None:
    """Wait before another try."""
    time.sleep(seconds)


def patiently(
    call: Callable[[], Result],
    wait: Callable[[float, int], None] = pause,
    tries: int = 4,
) -> Result:
    """Return ``call()``, tried again where the Hub is busy or fails, as long as it asks to wait.

    For calls that the client does not repeat itself and that may be made twice. ``wait`` is told
    the seconds and the status, and waits.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            seconds = retry_after(error)
            length = 2.0 ** (attempt - 1) if seconds is None else seconds
            if attempt == tries or status not in PASSING or length > LONGEST_WAIT:
                raise
            wait(length, status)
    raise AssertionError("unreachable")


def redacted(text: str) -> str:
    """Return ``text`` without tokens, and of any URL without its query and what logs in there.

    The query may be a signature. A token of any form goes, too, if it is the one in use here.
    """
    from huggingface_hub import get_token

    token = get_token()
    if token:
        text = text.replace(token, "…")
    text = re.sub(r"(\w://)[^\s/'\"@]+@", r"\1…@", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 …", text)
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]+", r"\1?…", text)
    return re.sub(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}", "hf_…", text)


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep signed URLs out of what the client logs while it tries again."""
    names = ("huggingface_hub.utils._http", "huggingface_hub")
    loggers = [logging.getLogger(name) for name in names]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    guard = _Redacting()
    places: list[Any] = [*loggers, *handlers]
    for place in places:
        place.addFilter(guard)
    try:
        yield
    finally:
        for place in places:
            place.removeFilter(guard)


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(lines[0]) if lines else "no reason given"
