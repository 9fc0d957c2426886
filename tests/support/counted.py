"""Stores and arrays that count how often each of their chunks is read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask.array as da
import numpy as np
import zarr
from zarr.storage import MemoryStore, WrapperStore

from lrgls_dask import System
from support.systems import Data


class CountingStore(WrapperStore):
    """A store that counts the reads of every chunk."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.gets: Counter[str] = Counter()

    def with_read_only(self, read_only: bool = False) -> CountingStore:
        return self

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if "/c/" in key or key.startswith("c/"):
            self.gets[key] += 1
        return await self._store.get(key, prototype, byte_range)

    def of(self, array: str) -> Counter[int]:
        """How often the chunks of one array were read -> how many were read so often."""
        return Counter(n for key, n in self.gets.items() if key.startswith(f"{array}/c/"))


def counted(data: Data, row_chunk: int = 10) -> CountingStore:
    """The system of these data, stored; no read is counted yet."""
    store = CountingStore(MemoryStore())
    data.system().to_zarr(store, row_chunk=row_chunk)
    store.gets.clear()
    return store


def counted_array(values: np.ndarray, rows: int) -> tuple[zarr.Array, Counter[str]]:
    """A zarr array in chunks of so many rows, and the count of its reads."""
    store = CountingStore(MemoryStore())
    array = zarr.create_array(store, shape=values.shape, chunks=(rows, *values.shape[1:]), dtype=values.dtype)
    array[...] = values
    store.gets.clear()
    return array, store.gets


def counted_rows(data: Data, rows: int) -> tuple[System, Counter[tuple[str, int]]]:
    """A system of Dask arrays in chunks of so many rows, and how often each chunk of X and of Y was computed."""
    reads: Counter[tuple[str, int]] = Counter()

    def lazily(name: str, values: np.ndarray) -> da.Array:
        def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
            reads[name, block_info[0]["chunk-location"][0]] += 1
            return block

        lazy = da.from_array(values, chunks=(rows, -1))
        return lazy.map_blocks(read, dtype=values.dtype, meta=values[:0], name=f"{name}-{id(reads)}")

    return System.from_arrays(lazily("Y", data.Y), lazily("X", data.X)), reads
