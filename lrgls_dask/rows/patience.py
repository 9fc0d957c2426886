"""What fails for a moment is tried again, a few times and ever later; what will not pass is raised at once."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lrgls_dask.errors import StoreFailure

__all__ = ["is_of_a_store", "is_transient", "patiently", "patiently_awaited", "status_of"]

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
TOO_MANY, SERVER_ERROR, NOT_IMPLEMENTED = 429, 500, 501
CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "obstore", "requests", "s3fs", "urllib3"}
PASSING_NAMES = {  # of clients that need not be installed: botocore (no OSErrors), obstore
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "ServerTimeoutError",
}


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


async def patiently_awaited(ask: Callable[[], Awaitable[Found]]) -> Found:
    """The same of what is awaited."""
    for wait in WAITS:
        try:
            return await ask()
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(wait)
    return await ask()


def is_transient(error: BaseException) -> bool:
    """Whether an error may be another's next time: a timeout, a lost connection, an answer of 5xx or 429.

    What its client makes of an answer, it calls the answer the cause of. What was tried again before is none.
    """
    if isinstance(error, StoreFailure):
        return False
    status = status_of(error)
    if status is not None:
        return status == TOO_MANY or (status >= SERVER_ERROR and status != NOT_IMPLEMENTED)
    return any(
        isinstance(each, TimeoutError | ConnectionError)
        or getattr(each, "errno", None) in PASSING
        or type(each).__name__ in PASSING_NAMES
        for each in _causes(error)
    )


def is_of_a_store(error: BaseException) -> bool:
    """Whether an error says that a store did not answer as it must, and nothing of what it holds."""
    return isinstance(error, OSError) or any(
        (isinstance(each, OSError) and not isinstance(each, FileNotFoundError))  # a part that is not there is damage
        or _status(each) is not None
        or any(base.__module__.partition(".")[0] in CLIENTS for base in type(each).__mro__)
        for each in _causes(error)
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a client of an object store says, in the ways of botocore and of aiohttp; None without."""
    return next((found for found in map(_status, _causes(error)) if found is not None), None)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised from."""
    found = [error]
    while found[-1].__cause__ is not None and found[-1].__cause__ not in found:
        found.append(found[-1].__cause__)
    return found


def _status(error: BaseException) -> int | None:
    answer: Any = getattr(error, "response", None)
    said = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    found = said if said is not None else getattr(error, "status", getattr(answer, "status_code", None))
    return found if isinstance(found, int) else None
