"""What lies behind arrays of rows: the zarr arrays that Dask's tasks and xarray's wrappers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import dask.array as da
import zarr

__all__ = ["makes_frames", "stored_arrays"]

FRAME_MODULES = ("dask.dataframe", "pandas", "lrgls_dask.data.tables")


def stored_arrays(arrays: Iterable[Any]) -> Iterator[zarr.Array]:
    """The zarr arrays that these arrays are read from, through Dask and xarray, whatever is selected of them.

    Looks at the tasks of Dask arrays once, and reads nothing.
    """
    return (item for item in _all_inside(arrays) if isinstance(item, zarr.Array))


def makes_frames(arrays: Iterable[Any]) -> bool:
    """Whether tasks behind Dask arrays make frames of pandas, as those of Dask frames do."""
    modules = (getattr(getattr(item, "func", None), "__module__", None) or "" for item in _all_inside(arrays))
    return any(name.startswith(FRAME_MODULES) for name in modules)


def _all_inside(arrays: Iterable[Any]) -> Iterator[Any]:
    """The arrays, and all that they are read from and made by, each thing once."""
    seen: dict[int, Any] = {}  # the things themselves too, so that no other gets the number of one
    waiting = list(arrays)
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        yield item
        if not isinstance(item, zarr.Array):
            waiting.extend(_inside(item))


def _inside(item: Any) -> Iterator[Any]:
    """What an array, a task or a wrapper holds that may be an array."""
    if isinstance(item, da.Array):
        graph: Any = item.__dask_graph__()
        for layer in graph.layers.values():
            if hasattr(layer, "io_deps"):  # one task for all blocks, and what it is given
                yield layer.task
                yield from (value for value, _ in layer.indices)
            else:
                yield from layer.values()
    elif isinstance(item, list | tuple):
        yield from item
    elif isinstance(item, dict):
        yield from item.values()
    else:
        # of tasks and data in graphs, and of xarray's wrappers around what a file or store holds
        for name in ("args", "kwargs", "value", "array", "_array"):
            inner = getattr(item, name, None) if not isinstance(item, str | bytes | int | float) else None
            if inner is not None and not callable(inner):
                yield inner
