"""Stores that are asked again where they fail for a moment, and named with the array where they fail for good.

All that is opened from and saved to a URL or a store object goes through one, each request by itself. Passes over rows
of other stores are as patient, a block at a time (`lrgls_dask.rows.patience`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from lrgls_dask.data.places import location_of
from lrgls_dask.errors import StoreFailure, scrubbed
from lrgls_dask.rows.patience import is_of_a_store, patiently, patiently_awaited

__all__ = ["PatientStore", "asked_of", "failure_at", "patient"]

Found = TypeVar("Found")


def patient(store: Store) -> Store:
    """The store, through which requests are made again. One on a disk of this machine is left as it is."""
    return store if isinstance(store, LocalStore | PatientStore) else PatientStore(store)


class PatientStore(WrapperStore[Store]):
    """Raises StoreFailure where a request failed for good, or too often."""

    def __str__(self) -> str:
        return str(self._store)

    def __repr__(self) -> str:
        return repr(self._store)

    def __eq__(self, other: object) -> bool:
        return bool(self._store == (other._store if isinstance(other, PatientStore) else other))

    __hash__ = None  # type: ignore[assignment]  # as of all stores

    async def _ask(self, key: str, ask: Callable[[], Awaitable[Found]]) -> Found:
        try:
            return await patiently_awaited(ask)
        except Exception as error:
            restated = failure_at(self._store, key, error)
            if restated is None:
                raise
            # what a client says itself is shown below an error: not where secrets are in it
            raise restated from (error if scrubbed(error) == str(error) else None)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return await self._ask(key, lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        first = wanted[0][0] if wanted else ""
        return await self._ask(first, lambda: self._store.get_partial_values(prototype, wanted))

    async def exists(self, key: str) -> bool:
        return await self._ask(key, lambda: self._store.exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        await self._ask(key, lambda: self._store.set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._ask(key, lambda: self._store.set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        await self._ask(key, lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._ask(prefix, lambda: self._store.delete_dir(prefix))

    async def clear(self) -> None:
        await self._ask("", self._store.clear)

    async def is_empty(self, prefix: str) -> bool:
        return await self._ask(prefix, lambda: self._store.is_empty(prefix))

    async def getsize(self, key: str) -> int:
        return await self._ask(key, lambda: self._store.getsize(key))

    async def getsize_prefix(self, prefix: str) -> int:
        return await self._ask(prefix, lambda: self._store.getsize_prefix(prefix))

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await Store._set_many(self, values)

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        async for each in Store._get_many(self, requests):
            yield each

    async def list(self) -> AsyncIterator[str]:
        for key in await self._ask("", lambda: _all(self._store.list())):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await self._ask(prefix, lambda: _all(self._store.list_prefix(prefix))):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for key in await self._ask(prefix, lambda: _all(self._store.list_dir(prefix))):
            yield key


def asked_of(path: Any, part: str, ask: Callable[[], Found]) -> Found:
    """What a file system answers about a path. Raises StoreFailure where it does not, FileNotFoundError as is."""
    try:
        return patiently(ask)
    except FileNotFoundError:
        raise
    except Exception as error:
        if not is_of_a_store(error):
            raise
        raise StoreFailure(path, part, f"{type(error).__name__}: {error}") from None


async def _all(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]


def failure_at(store: Any, key: str, error: BaseException) -> StoreFailure | None:
    """What to raise for an error at a key of a store; None for one that is no store's, or says already where it was."""
    if isinstance(error, StoreFailure | FileNotFoundError) or not is_of_a_store(error):
        return None
    place = location_of(store)
    name = key.rpartition("/c/")[0] or key.rpartition("/")[0]
    part = f"array {name!r}" if name else "its metadata"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return StoreFailure(place.called if place else store, part, said)
