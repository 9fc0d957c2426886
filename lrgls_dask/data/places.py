"""Where stores lie, so that none is written over the data it is made of: paths, URLs and stores compared as places.

A store that is written must lie apart from every store that is still to be read: neither be it, nor in it, nor around
it, whatever the two are called. Writing into a store leaves strangers in it, and replacing one around it deletes it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore, ZipStore

from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.behind import stored_arrays

__all__ = ["Location", "check_apart", "local_path", "location_of", "read_from"]

Locations = frozenset["Location"]

_GROUP_MARKS = ("zarr.json", ".zgroup")


@dataclass(frozen=True)
class Location:
    """A place in a file system, or inside one store object.

    system : which file system, bucket service or object.  steps : the way there from its root, links resolved.
    called : how to name it to the user.
    """

    system: Hashable
    steps: tuple[str, ...]
    called: str = field(compare=False)

    def holds(self, other: Location) -> bool:
        """Whether `other` is this place or lies in it."""
        return self.system == other.system and other.steps[: len(self.steps)] == self.steps

    def within(self, steps: tuple[str, ...]) -> Location:
        """The place that is so many steps further."""
        return Location(self.system, self.steps + steps, "/".join((self.called.rstrip("/"), *steps)))

    def group_of(self, path: str) -> Location:
        """The group of the array at that path of a store that lies here: what must stay whole is the group.

        An array that is a store by itself is its own place, but on a disk, where a look shows what it lies in.
        """
        steps = _steps(path)
        if steps:
            return self.within(steps[:-1])
        above = os.path.dirname(self.called)
        grouped = self.system == "disk" and any(os.path.exists(os.path.join(above, mark)) for mark in _GROUP_MARKS)
        return _on_disk(above) if grouped else self


def local_path(path: Any) -> Path | None:
    """The path where `path` says one of this machine, by itself, in a file:// URL or as a store; else None."""
    if isinstance(path, LocalStore):
        return Path(path.root)
    if isinstance(path, os.PathLike):
        return Path(os.fspath(path))
    if isinstance(path, str) and path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return Path(path) if isinstance(path, str) and "://" not in path and "::" not in path else None


def location_of(path: Any, storage_options: dict[str, Any] | None = None) -> Location | None:
    """Where a path, a URL, a zarr store, group or array lies; None for what is none of these. Reads nothing."""
    if isinstance(path, zarr.Group | zarr.Array):
        store = location_of(path.store_path.store)
        return None if store is None else store.within(_steps(path.store_path.path))
    if isinstance(path, WrapperStore):
        return location_of(path._store)
    if isinstance(path, ZipStore):
        path = path.path
    local = local_path(path)
    if local is not None:
        return _on_disk(str(local))
    if isinstance(path, FsspecStore):
        return _in_file_system(path.fs, path.path)
    if isinstance(path, Store):
        held = path._store_dict if isinstance(path, MemoryStore) else path
        return Location(("object", id(held)), (), str(path))
    if not isinstance(path, str):
        return None
    try:
        filesystem, root = fsspec.core.url_to_fs(path, **(storage_options or {}))
    except (ValueError, ImportError):  # which whoever opens it says better
        return None
    return _in_file_system(filesystem, root, called=without_secrets(path))


def check_apart(path: Any, places: Iterable[Location], storage_options: dict[str, Any] | None = None) -> None:
    """Raise ValueError, naming both, where `path` is one of the places, lies in one or around one."""
    target = location_of(path, storage_options)
    if target is None:
        return
    for place in sorted(places, key=lambda place: place.called):
        if target.holds(place) or place.holds(target):
            relation = "is" if target == place else "lies in" if place.holds(target) else "holds"
            raise ValueError(
                f"{without_secrets(path)} {relation} {place.called}, which is read for what would be written there: "
                "its data would be lost. Choose another path."
            )


def read_from(arrays: Iterable[Any]) -> Locations:
    """Where the zarr arrays lie that these arrays are read from, see `stored_arrays`; those in memory have none."""
    found: set[Location] = set()
    for array in stored_arrays(arrays):
        place = location_of(array.store_path.store)
        if place is not None:
            found.add(place.group_of(array.store_path.path))
    return frozenset(found)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(step for step in path.split("/") if step)


def _on_disk(path: str) -> Location:
    real = os.path.realpath(path)
    return Location("disk", tuple(part for part in Path(real).parts), real)


def _in_file_system(fs: Any, path: str, called: str = "") -> Location:
    """The place in a file system of fsspec, under the ones that only cache or rename."""
    while True:
        inner = getattr(fs, "sync_fs", None) or getattr(fs, "fs", None)
        if inner is None or not isinstance(inner, fsspec.AbstractFileSystem):
            break
        path = "/".join((fs.path, path)) if type(fs).__name__ == "DirFileSystem" else path
        fs = inner
    protocol = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    if "file" in protocol:
        return _on_disk(path)
    options = getattr(fs, "storage_options", {})
    service = options.get("endpoint_url") or (options.get("client_kwargs") or {}).get("endpoint_url")
    split = urlsplit(path)
    steps = _steps(unquote(f"{split.netloc}/{split.path}") if split.scheme else path)
    return Location((protocol[0], service), steps, called or without_secrets(f"{protocol[0]}://{'/'.join(steps)}"))
