"""A store that fails its n-th operation, in one of the ways in which stores do."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any

from zarr.storage import WrapperStore

INJECTED = "injected"


class ServerError(Exception):
    """As clients of object stores raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{INJECTED}: the server answered {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


KINDS: dict[str, Callable[[], Exception]] = {
    "timeout": lambda: TimeoutError(errno.ETIMEDOUT, INJECTED),
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, INJECTED),
    "503": lambda: ServerError(503),
    "denied": lambda: PermissionError(errno.EACCES, INJECTED),
    "not found": lambda: FileNotFoundError(errno.ENOENT, INJECTED),
    "full": lambda: OSError(errno.ENOSPC, INJECTED),
    "read-only": lambda: OSError(errno.EROFS, INJECTED),
    "403": lambda: ServerError(403),
}
TRANSIENT = ("timeout", "reset", "503")
SHORT = "short read"  # no error: fewer bytes than there are


class FaultyStore(WrapperStore[Any]):
    """Fails operation number `n`, counted from 1, and `times` in a row from there; hit counts what was."""

    def __init__(self, store: Any, kind: str = "", n: int = 0, times: int = 1, only: str = "") -> None:
        super().__init__(store)
        self.kind, self.n, self.times, self.only = kind, n, times, only
        self.done, self.hit = 0, Counter[str]()

    def with_read_only(self, read_only: bool = False) -> FaultyStore:
        return self

    def _fails(self, what: str) -> bool:
        if self.only and what != self.only:
            return False
        self.done += 1
        if not self.n <= self.done < self.n + self.times or self.n == 0:
            return False
        self.hit[f"{what}: {self.kind}"] += 1
        if self.kind == SHORT:
            return what == "get"
        raise KINDS[self.kind]()

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        short = self._fails("get")
        found = await self._store.get(key, prototype, byte_range)
        return (
            prototype.buffer.from_bytes(found.to_bytes()[: len(found) // 2]) if short and found is not None else found
        )

    async def set(self, key: str, value: Any) -> None:
        self._fails("set")
        await self._store.set(key, value)

    async def delete(self, key: str) -> None:
        self._fails("delete")
        await self._store.delete(key)

    async def list_prefix(self, prefix: str) -> Any:
        self._fails("list")
        async for each in self._store.list_prefix(prefix):
            yield each

    async def list_dir(self, prefix: str) -> Any:
        self._fails("list")
        async for each in self._store.list_dir(prefix):
            yield each
