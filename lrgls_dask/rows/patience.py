"""Reads that fail for a moment are tried again, a few times and ever later; what will not pass is raised at once."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["is_transient", "patiently"]

Found = TypeVar("Found")

WAITS = (0.1, 0.4, 1.6, 6.4)  # seconds before each further try: a throttled bucket asks for seconds, not minutes
PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
TOO_MANY, SERVER_ERROR = 429, 500


def patiently(read: Callable[[], Found]) -> Found:
    """What `read` gives, at the first try that does not fail in a way that may pass."""
    for wait in WAITS:
        try:
            return read()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(wait)
    return read()


def is_transient(error: BaseException) -> bool:
    """Whether an error may be another's next time: a timeout, a lost connection, an answer of 5xx or 429."""
    if isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) in PASSING:
        return True
    status = _status(error)
    return status is not None and (status == TOO_MANY or status >= SERVER_ERROR)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client of an object store says, in the ways of botocore and of aiohttp."""
    answer: Any = getattr(error, "response", None)
    said = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    found = said if said is not None else getattr(error, "status", getattr(answer, "status_code", None))
    return found if isinstance(found, int) else None
