"""Opening zarr groups with errors a user can act on, and writing them so that a failure leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, StorePath

from lrgls_dask.data.locks import has_locks, locked
from lrgls_dask.data.patientstore import asked_of, patient
from lrgls_dask.data.places import Location, check_apart, local_path
from lrgls_dask.data.unfinished import beside, new_folder, remove_folder
from lrgls_dask.errors import StoreFailure, reason_of, scrubbed, without_secrets
from lrgls_dask.rows.patience import is_of_a_store, patiently

__all__ = [
    "held_alone",
    "is_store",
    "is_store_at",
    "new_store",
    "open_group",
    "open_to_grow",
    "put_in_place",
    "refuse",
    "remove_store",
    "room_for",
]

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def open_group(path: Any, storage_options: dict[str, Any] | None = None) -> zarr.Group:
    """The zarr group (version 2 or 3) at a path, an fsspec URL or in a store object, for reading.

    Raises FileNotFoundError where nothing is, ValueError where something else is than a zarr group.
    """
    if isinstance(path, zarr.Group):
        return path
    local = local_path(path)
    if local is not None and storage_options:
        raise ValueError(
            f"storage_options are for URLs such as s3://...; {without_secrets(path)} is a local path. Leave them out."
        )
    try:
        return zarr.open_group(_store_of(path, storage_options, read_only=True), mode="r")
    except ContainsArrayError as error:
        raise ValueError(
            f"{without_secrets(path)} is a zarr array but must be a zarr group. Open the group it belongs to."
        ) from error
    except (FileNotFoundError, GroupNotFoundError) as error:
        if local is not None and local.exists():
            raise ValueError(
                f"{without_secrets(path)} exists but is no zarr group. Check the path; convert other formats with "
                "System.from_xarray(...).to_zarr(...)."
            ) from error
        raise FileNotFoundError(
            f"no zarr store at {without_secrets(path)}. Check the path, or write one with System.to_zarr(...)."
        ) from error
    except OSError:
        raise
    except Exception as error:  # in whatever way metadata show that they are damaged
        if is_of_a_store(error):  # its client, before anything is asked of it
            raise StoreFailure(path, "the store", f"{type(error).__name__}: {error}") from None
        raise ValueError(
            f"the zarr metadata at {without_secrets(path)} cannot be read: {scrubbed(reason_of(error))}. "
            "Restore the store."
        ) from error


def _store_of(path: Any, storage_options: dict[str, Any] | None, *, read_only: bool) -> Any:
    """What zarr opens: a patient store at a path, URL or store object, with the path in it if there is one."""
    local = local_path(path)
    if local is not None:
        return LocalStore(local, read_only=read_only)
    if isinstance(path, str):
        return patient(FsspecStore.from_url(path, storage_options=storage_options or None, read_only=read_only))
    if isinstance(path, StorePath):
        return StorePath(patient(path.store), path.path)
    return patient(path) if isinstance(path, Store) else path


def is_store(path: Path) -> bool:
    """Whether a local path holds a zarr group or array."""
    return any((path / mark).exists() for mark in ZARR_MARKS)


def is_store_at(url: str, storage_options: dict[str, Any] | None = None) -> bool:
    """The same of a URL."""
    filesystem, root = fsspec.core.url_to_fs(url, **(storage_options or {}))
    return any(patiently(partial(filesystem.exists, f"{root.rstrip('/')}/{mark}")) for mark in ZARR_MARKS)


def open_to_grow(path: Any, storage_options: dict[str, Any] | None = None) -> zarr.Group:
    """The same group, to be written into. Raises as `open_group` does, and ValueError where a store cannot change."""
    open_group(path, storage_options)
    if local_path(path) is not None:
        return zarr.open_group(_store_of(path, None, read_only=False), mode="r+")
    given = path.store if isinstance(path, zarr.Group) else path
    if isinstance(given, Store) and (given.read_only or not given.supports_deletes):
        raise ValueError(
            f"{without_secrets(path)} cannot be written into. Open it for writing, or copy it to a path first."
        )
    if isinstance(path, zarr.Group):
        return zarr.open_group(path.store_path, mode="r+")
    return zarr.open_group(_store_of(path, storage_options, read_only=False), mode="r+")


def room_for(path: Any) -> int | None:
    """Free bytes on the disk where a path lies; None of what is no local one."""
    local = local_path(path)
    if local is None:
        return None
    parent = next(folder for folder in Path(os.path.abspath(local)).parents if folder.is_dir())
    return shutil.disk_usage(parent).free


@contextmanager
def held_alone(path: Any) -> Iterator[None]:
    """While this lasts no other process or thread gets the same path, where that is a local one on a POSIX system.

    What holds it lets go when it is killed. Raises OSError where another has it.
    """
    local = local_path(path.store if isinstance(path, zarr.Group) else path)
    if not has_locks() or local is None or not local.is_dir():
        yield
        return
    folder = os.open(local, os.O_RDONLY)
    try:
        try:
            locked(folder)
        except BlockingIOError as error:
            raise OSError(
                f"{without_secrets(path)} is being appended to by another. Wait until that is done."
            ) from error
        yield
    finally:
        os.close(folder)


@contextmanager
def new_store(
    path: Any,
    *,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    apart_from: Iterable[Location] = (),
) -> Iterator[Store]:
    """A zarr store to write into, which appears at `path` complete when the block ends, or not at all.

    Local paths and overwritten URLs are written beside `path` and moved; what was there stays until then. A new URL is
    written in place. A failure deletes what was written. A store object has no place beside it: overwriting clears it
    first.
    apart_from : where the data lie that what is written is made of; `path` must be none of these, nor in or around one.

    Raises ValueError where it is, FileExistsError where something is at `path` and overwrite is False, or is no zarr
    store.
    """
    check_apart(path, apart_from, storage_options)
    local = local_path(path)
    if local is not None:
        if storage_options:
            raise ValueError(
                f"storage_options are for URLs such as s3://...; {without_secrets(path)} is a local path. "
                "Leave them out."
            )
        manager = _new_local(Path(os.path.abspath(local)), overwrite)
    elif isinstance(path, str):
        manager = _new_remote(path, overwrite, storage_options or {})
    elif isinstance(path, Store):
        manager = _new_in_store(path, overwrite)
    else:
        raise TypeError(f"path is a {type(path).__name__} but must be a path, a URL or a zarr store. Use str(path).")
    with manager as store:
        yield store


def remove_store(path: Any) -> None:
    """Delete a zarr store of our own making: a local path, which is gone at once and not in part, or a URL."""
    local = local_path(path)
    if local is not None:
        target = Path(os.path.abspath(local))
        aside = beside(target, "removed")
        os.rename(target, aside)
        remove_folder(aside)
        return
    filesystem, root = fsspec.core.url_to_fs(str(path))
    asked_of(path, "the store", lambda: filesystem.rm(root, recursive=True) if filesystem.exists(root) else None)


def refuse(path: Any, zarr_is_there: bool, overwrite: bool) -> None:
    """Raise FileExistsError for what is there already, unless it is a zarr store that may be overwritten."""
    if not zarr_is_there:
        raise FileExistsError(
            f"{without_secrets(path)} exists and is no zarr store, so it is not replaced. Choose another path."
        )
    if not overwrite:
        raise FileExistsError(f"{without_secrets(path)} exists. Choose another path, or pass overwrite=True.")


@contextmanager
def _new_local(target: Path, overwrite: bool) -> Iterator[Store]:
    if os.path.lexists(target):
        refuse(target, is_store(target), overwrite)
    with new_folder(target) as fresh:
        try:
            yield LocalStore(fresh)
            put_in_place(fresh, target, overwrite)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def put_in_place(fresh: Path, target: Path, overwrite: bool) -> None:
    """Move a complete store to where it is to be; what is there goes only if it may be overwritten."""
    if os.path.lexists(target):
        refuse(target, is_store(target), overwrite)
        _swap(fresh, target, beside(target, "replaced"))
    else:
        os.rename(fresh, target)


def _swap(fresh: Path, target: Path, aside: Path) -> None:
    if _exchanged(fresh, target):
        os.rename(fresh, aside)
    else:
        os.rename(target, aside)
        try:
            os.rename(fresh, target)
        except BaseException:
            os.rename(aside, target)
            raise
    if aside.is_symlink():
        aside.unlink()
    else:
        remove_folder(aside)


def _exchanged(one: Path, another: Path) -> bool:
    """Whether two paths could have their names exchanged at once, which Linux does on most file systems."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(another), exchange) == 0)


@contextmanager
def _new_remote(url: str, overwrite: bool, storage_options: dict[str, Any]) -> Iterator[Store]:
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **storage_options)
    except ValueError as error:
        raise ValueError(
            f"{without_secrets(url)} cannot be opened: {scrubbed(error)}. Install the fsspec driver, or check the URL."
        ) from error
    root = root.rstrip("/")
    exists = asked_of(url, "the store", lambda: filesystem.exists(root))
    if exists:
        refuse(url, is_store_at(url, storage_options), overwrite)
    written = f"{url.rstrip('/')}.{uuid4().hex[:8]}.partial" if exists else url
    place = fsspec.core.url_to_fs(written, **storage_options)[1].rstrip("/")
    try:
        yield patient(FsspecStore.from_url(written, storage_options=storage_options))
    except BaseException:
        filesystem.invalidate_cache()
        if filesystem.exists(place):
            filesystem.rm(place, recursive=True)
        raise
    if exists:
        try:
            filesystem.rm(root, recursive=True)
            filesystem.mv(place, root, recursive=True)
        except Exception as error:
            raise OSError(
                f"{without_secrets(url)} could not be replaced ({scrubbed(error)}). The "
                f"new store is complete at {without_secrets(written)}."
            ) from error


@contextmanager
def _new_in_store(store: Store, overwrite: bool) -> Iterator[Store]:
    store = patient(store)
    if not sync(store.is_empty("")):
        refuse(store, True, overwrite)
        sync(store.clear())
    try:
        yield store
    except BaseException:
        sync(store.clear())
        raise
