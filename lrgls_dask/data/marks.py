"""Whether stores are still those that a system was opened on: one that is overwritten while it is read gives a mixture.

An array that `System.to_zarr` wrote says which writing it is of, and appending leaves that as it is. Of others the file
with their metadata is looked at: when it was changed, and how long it is, as far as its file system tells.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from lrgls_dask.data.places import location_of
from lrgls_dask.data.seal import WRITTEN
from lrgls_dask.errors import ChangedStore
from lrgls_dask.rows.behind import stored_arrays

__all__ = ["Marks"]

DOCUMENTS = {2: ".zarray", 3: "zarr.json"}
CHANGES = ("LastModified", "last_modified", "mtime", "updated", "created", "ETag", "size")  # what file systems tell


class Marks:
    """What tells the stored arrays behind some sources from others that were written in their place since."""

    def __init__(self, sources: Iterable[tuple[str, Any]]) -> None:
        self._sources = tuple(sources)

    @cached_property
    def _arrays(self) -> list[tuple[str, zarr.Array]]:
        found = {str(each.store_path): (name, each) for name, data in self._sources for each in stored_arrays([data])}
        return list(found.values())

    @cached_property
    def _first(self) -> list[Any]:
        return [_mark(array, first=True) for _, array in self._arrays]

    def look(self) -> None:
        """Raise ChangedStore, naming it, where an array is not the one that it was at the first look."""
        for (name, array), was in zip(self._arrays, self._first, strict=True):
            if was is not None and _mark(array) not in (was, None):
                place = location_of(array)
                raise ChangedStore(name, place.called if place else str(array.store_path))


def _mark(array: zarr.Array, *, first: bool = False) -> Any:
    """None where nothing is known."""
    said = array.attrs.get(WRITTEN)
    if said is not None and first:
        return said
    store, path = array.store_path.store, array.store_path.path
    while isinstance(store, WrapperStore):
        store = store._store
    document = f"{path}/{DOCUMENTS[array.metadata.zarr_format]}".lstrip("/")
    try:
        if said is not None:
            found = sync(store.get(document, default_buffer_prototype()))
            return "gone" if found is None else json.loads(found.to_bytes())["attributes"].get(WRITTEN, "another")
        if isinstance(store, LocalStore):
            there = os.stat(Path(store.root) / document)
            return there.st_mtime_ns, there.st_size, there.st_ino
        if isinstance(store, FsspecStore):
            info = sync(store.fs._info(f"{store.path}/{document}"))
            return [str(info.get(each)) for each in CHANGES]
    except FileNotFoundError:
        return "gone"
    except Exception:  # a file system that does not answer now says nothing of what it holds
        return None
    return None
