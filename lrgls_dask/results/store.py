"""A fit on disk: a zarr group of plain arrays and attributes, opened by `xr.open_zarr` too, never a pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import zarr

from lrgls_dask.data.places import Location
from lrgls_dask.data.seal import check_seal, write_sealed
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.zarrio import check_version

__all__ = ["read_parts", "write_parts"]

FORMAT = 1


def write_parts(
    path: Any,
    kind: str,
    write: Callable[[zarr.Group], None],
    *,
    overwrite: bool,
    storage_options: Mapping[str, Any] | None,
    apart_from: Iterable[Location],
) -> None:
    """What `write` puts into a new group that says what `kind` of fit it holds; complete or not there at all.

    apart_from : where the fitted rows lie, see `new_store`.
    """
    options = None if storage_options is None else dict(storage_options)
    with new_store(path, overwrite=overwrite, storage_options=options, apart_from=apart_from) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        write(group)
        write_sealed(group, **{_attribute(kind): FORMAT})


def read_parts(path: Any, kind: str, what: str, storage_options: Mapping[str, Any] | None) -> zarr.Group:
    """The group of such a fit. Raises FileNotFoundError, or ValueError for what is none, damaged, or later."""
    group = open_group(path, None if storage_options is None else dict(storage_options))
    check_version(group, _attribute(kind), FORMAT, path, what)
    check_seal(group, path, what)
    return group


def _attribute(kind: str) -> str:
    return f"lrgls_{kind}_format"
