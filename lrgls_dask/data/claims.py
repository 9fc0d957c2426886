"""Arrays of a store as their metadata claim them, looked at before anything of that size is allocated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import zarr
from zarr.errors import ZarrUserWarning

from lrgls_dask.data.chunkclaims import bounded
from lrgls_dask.data.seal import read_whole

__all__ = ["arrays_in", "check_claims", "member", "names_in", "whole", "whole_numbers"]

MOST_CHUNKS = 10**7  # along the rows: a list of them is made, and a pass has a task for several
MOST_COLUMNS = 10**7  # each has a name


def member(group: zarr.Group, name: str) -> zarr.Array | zarr.Group | None:
    """What a group has under a name, None where there is nothing; an array must be one that this machine can read.

    Raises DamagedStore for metadata that zarr cannot read, pickled objects and paths that lead out of the group among
    them, and ValueError for sizes beyond all memory. Reads metadata only.
    """
    found: Any = read_whole(f"{group.store_path}/{name}", "array", lambda: _inside(group, name))
    if isinstance(found, zarr.Array):
        check_claims(name, found)
        bounded(found)
    return found


def _inside(group: zarr.Group, name: str) -> Any:
    if name.startswith("/") or any(step in ("", ".", "..") for step in name.split("/")):
        return None
    return group.get(name)


def names_in(group: zarr.Group) -> list[str]:
    """The names of all arrays and groups in a group, sorted. Raises DamagedStore where metadata cannot be read."""
    return sorted(_known(group))


def arrays_in(group: zarr.Group) -> dict[str, zarr.Array]:
    """The arrays in a group by name. Raises as `member` does."""
    found = {name: each for name, each in _known(group).items() if isinstance(each, zarr.Array)}
    for name, array in found.items():
        check_claims(name, bounded(array))
    return found


def _known(group: zarr.Group) -> dict[str, Any]:
    """What lies in a group; keys that are of no array or group are passed over."""

    def read() -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)  # of those keys
            return dict(group.members())

    return read_whole(group.store_path, "store", read)


def check_claims(name: str, array: zarr.Array) -> None:
    """Raise ValueError for sizes that no machine like this one could have written or can read, and for attributes that
    have no names, from metadata alone."""
    if not isinstance(array.metadata.attributes, Mapping):
        raise ValueError(f"the attributes of {name} are {array.metadata.attributes!r:.40}. Restore the store.")
    chunks = array.shards or array.chunks
    chunk_bytes, memory = math.prod(chunks) * array.dtype.itemsize, psutil.virtual_memory().total
    n_chunks = -(-array.shape[0] // max(chunks[0], 1)) if array.ndim else 1
    columns = math.prod(array.shape[1:])
    if chunk_bytes > memory:
        said = f"chunks of {chunk_bytes:,} bytes, of which this machine has {memory:,}"
    elif n_chunks > MOST_CHUNKS:
        said = f"{n_chunks:,} chunks of rows, where {MOST_CHUNKS:,} are the most that can be read"
    elif columns > MOST_COLUMNS:
        said = f"{columns:,} columns, where {MOST_COLUMNS:,} are the most that can be read"
    else:
        return
    raise ValueError(f"the metadata of {name} claim {said}. Write the store again with other chunks, or restore it.")


def whole(array: zarr.Array) -> np.ndarray:
    """All of an array that is small where it is what it should be. Raises DamagedStore for what cannot be read."""
    name = array.path.rpartition("/")[2]
    check_claims(name, array)
    n_bytes, memory = math.prod(array.shape) * array.dtype.itemsize, psutil.virtual_memory().available // 2
    if n_bytes > memory:
        raise ValueError(
            f"the metadata of {name} claim {n_bytes:,} bytes, for which this machine has no place: {memory:,} are half "
            "of what is free. Restore the store."
        )
    return np.asarray(read_whole(array.store_path, "array", lambda: bounded(array)[...]))


def whole_numbers(array: zarr.Array) -> np.ndarray:
    """The same of an array that counts or points. Raises ValueError for numbers with fractions, and what is none."""
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{array.path.rpartition('/')[2]} has dtype {array.dtype} but must hold whole numbers. Restore the store."
        )
    return whole(array).astype(np.intp)
