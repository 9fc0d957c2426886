"""Whether stores are still those that a system was read from: one that is overwritten while it is read is a mixture.

An array that `System.to_zarr` wrote says which writing it is of, and appending leaves that as it is. Of others the
document with their metadata is looked at, which whoever writes an array anew writes anew: when it was changed, as far
as its file system tells, and what it says. Other attributes, permissions, links, copies with their times: no change.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from lrgls_dask.data.places import location_of
from lrgls_dask.data.seal import WRITTEN, writing_of
from lrgls_dask.errors import ChangedStore
from lrgls_dask.rows.behind import stored_arrays

__all__ = ["Marks"]

DOCUMENTS = {2: ".zarray", 3: "zarr.json"}
TIMES = ("LastModified", "last_modified", "mtime", "updated", "size")  # what file systems tell that have no ETag
AT_ONCE = 16  # requests that a store is asked to answer together


class Marks:
    """What tells the stored arrays behind some sources from others that were written in their place since."""

    def __init__(self, sources: Iterable[tuple[str, Any]]) -> None:
        self._sources = tuple(sources)

    @cached_property
    def _arrays(self) -> list[tuple[str, zarr.Array]]:
        found = {str(each.store_path): (name, each) for name, data in self._sources for each in stored_arrays([data])}
        return list(found.values())

    @cached_property
    def _first(self) -> list[_Mark]:
        arrays = [array for _, array in self._arrays]
        writings = [writing_of(array) for array in arrays]  # as they were opened
        found = sync(_marks(arrays, writings))
        return [replace(mark, writing=writing) for mark, writing in zip(found, writings, strict=True)]

    def begin(self) -> None:
        """Remember the arrays as they are now; the first time alone."""
        _ = self._first

    def look(self) -> None:
        """Raise ChangedStore, naming it, where an array is not the one that it was at the first look."""
        first = self._first
        now = sync(_marks([array for _, array in self._arrays], [mark.writing for mark in first]))
        for (name, array), was, found in zip(self._arrays, first, now, strict=True):
            if found.is_another_than(was):
                place = location_of(array)
                raise ChangedStore(name, place.called if place else str(array.store_path))


@dataclass(frozen=True)
class _Mark:
    """writing : of arrays of ours, None of others.  time : of the document, None where nothing is known.  said : the
    document but for its attributes, None if it is gone.  chunk : time of the first chunk, None if there is none."""

    writing: str | None
    time: Any
    said: Any
    chunk: Any = None

    def is_another_than(self, was: _Mark) -> bool:
        if was.said is None or (self.said is None and self.time is None):
            return False  # nothing is known
        if self.said is None:
            return True
        if was.writing is not None:
            return bool(self.writing != was.writing)
        if self.time == was.time:
            return False
        # where the rows stayed as they were, the document was written for the attributes of the user
        return bool(self.said != was.said or self.chunk != was.chunk)


async def _marks(arrays: list[zarr.Array], writings: list[str | None]) -> list[_Mark]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def mark(array: zarr.Array, writing: str | None) -> _Mark:
        async with gate:
            return await _mark(array, writing)

    return list(await asyncio.gather(*(mark(*each) for each in zip(arrays, writings, strict=True))))


async def _mark(array: zarr.Array, writing: str | None) -> _Mark:
    store: Store = array.store_path.store
    path = f"{array.store_path.path}/{DOCUMENTS[array.metadata.zarr_format]}".lstrip("/")
    try:
        time = None if writing is not None else await _time(store, path)
        chunk = None if writing is not None else await _chunk_time(array)
        content = await store.get(path, default_buffer_prototype())
        if content is None:
            return _Mark(None, "gone", None)
        whole = json.loads(content.to_bytes())
    except FileNotFoundError:
        return _Mark(None, "gone", None)
    except (OSError, ValueError):  # a store that does not answer now says nothing of what it holds
        return _Mark(None, None, None)
    attributes = whole.pop("attributes", None)
    now = attributes.get(WRITTEN) if writing is not None and isinstance(attributes, dict) else None
    return _Mark(now, time, whole, chunk)


async def _chunk_time(array: zarr.Array) -> Any:
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    try:
        return await _time(array.store_path.store, f"{array.store_path.path}/{first}".lstrip("/"))
    except FileNotFoundError:
        return None


async def _time(store: Any, path: str) -> Any:
    """When a document was written, in whatever way its file system tells."""
    while isinstance(store, WrapperStore):
        store = store._store
    if isinstance(store, LocalStore):
        return os.stat(Path(store.root) / path).st_mtime_ns
    if isinstance(store, FsspecStore):
        info = await store.fs._info(f"{store.path}/{path}")
        return info["ETag"] if info.get("ETag") else [str(info.get(each)) for each in TIMES]
    return None
