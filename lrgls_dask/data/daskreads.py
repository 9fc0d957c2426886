"""Dask arrays that do nothing but read a zarr array, seen through.

`da.from_zarr`, `da.from_array` and `xr.open_zarr` cut an array into tasks that each read one chunk. A pass that knows
the zarr array reads the same chunks by itself, in its own blocks and into memory it uses again. Any other graph, values
that xarray decodes among them, is left to Dask.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import zarr
from dask._task_spec import DataNode, TaskRef
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.blockwise import Blockwise
from dask.layers import ArraySliceDep

__all__ = ["zarr_behind"]

GETTERS = (getter, getter_inline, getter_nofancy)
WRAPPERS = ("ImplicitToExplicitIndexingAdapter", "CopyOnWriteArray")  # of xarray, which change no value


def zarr_behind(array: da.Array) -> zarr.Array | None:
    """The zarr array of which `array` is every row and column in order, if its graph says no more than that."""
    layers = array.dask.layers
    layer = layers.get(array.name)
    if not isinstance(layer, Blockwise) or layer.task.func not in GETTERS:
        return None
    if len(layer.task.args) != 2 or any(layer.task.kwargs.values()):  # a lock, say
        return None
    whole = [value for value, axes in layer.indices if axes is None]
    slices = [layer.io_deps.get(str(value)) for value, axes in layer.indices if axes is not None]
    if len(whole) != 1 or len(slices) != 1 or not isinstance(slices[0], ArraySliceDep):
        return None
    source: Any = whole[0]
    if isinstance(source, TaskRef):
        source = layers.get(source.key, {}).get(source.key)
    found = _without_wrappers(source.value if isinstance(source, DataNode) else source)
    same = isinstance(found, zarr.Array) and (found.shape, found.dtype) == (array.shape, array.dtype)
    return found if same and slices[0].chunks == array.chunks else None


def _without_wrappers(source: Any) -> Any:
    """What xarray wraps a variable of a zarr store in taken off, where nothing of it decodes or selects."""
    while type(source).__name__ in WRAPPERS:
        source = source.array
    if type(source).__name__ != "LazilyIndexedArray":
        return source
    whole = all(isinstance(key, slice) and key == slice(None) for key in source.key.tuple)
    return getattr(source.array, "_array", None) if whole else None
