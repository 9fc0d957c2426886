"""Chunks that were never written to a zarr store: zarr reads its fill value in their place, and says nothing.

One rule for every array of rows that comes from zarr, directly, through Dask or through xarray: Y, X, weights, groups,
labels of rows, and new data of predictions. A store that lacks chunks is warned of, or refused with strict=True. It may
be right all the same: zarr by default leaves out chunks that hold nothing but the fill value.
An array that `System.to_zarr` wrote has all its chunks, so one that lacks some is damaged.
Not looked at are other arrays whose fill value is NaN, which is refused, or means that nothing was observed, wherever
it is read; those in stores that list no keys; and, unless strict, those of more than `LISTED` chunks.

Costs one listing of the keys of each stored array, in the client, when the rows are described; no chunk is read. A
local disk lists a million chunks in seconds, a bucket a thousand a request. Of a sharded array whole shards are seen,
not what one leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync

from lrgls_dask.data.places import location_of
from lrgls_dask.data.plainchunks import plain_if_possible
from lrgls_dask.data.seal import why_missing, writing_of
from lrgls_dask.errors import DamagedStore, UnwrittenChunks, warn_user
from lrgls_dask.rows.behind import stored_arrays

__all__ = ["LISTED", "check_written"]

LISTED = 10**6
SHOWN = 5


def check_written(named: Iterable[tuple[str, Any]], *, strict: bool = False) -> None:
    """Warn of arrays whose chunks were not all written, with UnwrittenChunks.

    named : what the user calls each array, and the array.  strict : raise ValueError instead.
    """
    seen: set[Any] = set()
    for name, data in named:
        for array in stored_arrays([data]):
            key = location_of(array) or id(array)
            if key in seen:
                continue
            seen.add(key)
            is_ours = writing_of(array) is not None
            text = _lacking(name, array, strict, is_ours=is_ours)
            if text and is_ours:
                place, why = location_of(array), why_missing(array)
                raise DamagedStore(
                    place.called if place else array.store_path, "store", f"{text} {why[0].upper()}{why[1:]}"
                )
            if text and strict:
                raise ValueError(f"{text} Write the missing chunks, or leave out strict=True.")
            if text:
                warn_user(
                    f"{text} zarr leaves out chunks that hold nothing else: if so here, all is well; if not, they got "
                    "lost, and are to be written again. strict=True refuses such arrays.",
                    UnwrittenChunks,
                )


def _lacking(name: str, array: zarr.Array, strict: bool, *, is_ours: bool) -> str:
    """What to say of an array; nothing where nothing is missing, or nothing is asked."""
    if is_ours:
        if plain_if_possible(array) is not array:  # passes refuse to read a chunk that is not there
            return ""
    elif _is_nan(array.fill_value):
        return ""
    heights = array.shards or array.chunks
    grid = tuple(-(-length // height) for length, height in zip(array.shape, heights, strict=True))
    n_chunks = int(np.prod(grid, dtype=np.int64))
    if n_chunks > LISTED and not strict:
        return ""
    store = array.store_path.store
    if not store.supports_listing:
        if strict:
            raise ValueError(f"{name}: {store} lists no keys, so strict=True cannot tell what it lacks. Leave it out.")
        return ""
    path = array.store_path.path
    start = f"{path}/" if path else ""
    there = sync(_keys(store, start))
    encode = array.metadata.encode_chunk_key
    absent = [chunk for chunk in np.ndindex(*grid) if start + encode(chunk) not in there]
    if not absent:
        return ""
    first = ", ".join(str(chunk[0] if len(chunk) == 1 else chunk) for chunk in absent[:SHOWN])
    rest = ", ..." if len(absent) > SHOWN else ""
    lacking = f"{len(absent):,} of the {n_chunks:,} {'shards' if array.shards else 'chunks'}"
    place = location_of(array)
    value = array.fill_value if array.fill_value is not None else array.dtype.type()
    return (
        f"{name}: {lacking} of {place.called if place else path} were never written, "
        f"numbers {first}{rest}; their rows read as the fill value, {value}."
    )


async def _keys(store: Store, start: str) -> set[str]:
    return {key async for key in store.list_prefix(start)}


def _is_nan(value: Any) -> bool:
    return bool(np.isscalar(value) and value != value)
