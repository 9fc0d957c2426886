"""Rows of a plain zarr array on a local disk, read straight into memory that is used again and again.

A chunk stored without compression is its rows, byte for byte, and perhaps their checksum. Going through fresh buffers
costs more time than reading it: two copies and a page fault every 4 kB. Anything else about an array - another codec or
store, a chunk that is missing, of the wrong size or with another checksum - is left to zarr, which refuses the last.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.codecs import BytesCodec
from zarr.storage import FsspecStore, LocalStore

from lrgls_dask.data.seal import CHECKED, why_missing, writing_of

__all__ = ["PlainChunks", "plain_if_possible"]

CHECKSUM_BYTES = 4


def plain_if_possible(array: Any) -> Any:
    """`PlainChunks` of a zarr array that allows it, else the array itself."""
    return PlainChunks(array) if _is_plain(array) else array


def _is_plain(array: Any) -> bool:
    if not isinstance(array, zarr.Array) or _local_root(array.store_path.store) is None:
        return False
    metadata: Any = array.metadata
    if metadata.zarr_format != 3 or array.shards is not None or array.ndim not in (1, 2):
        return False
    codecs = metadata.codecs
    native = tuple(codecs[1:]) in ((), CHECKED) and isinstance(codecs[0], BytesCodec) and array.dtype.isnative
    endian = getattr(getattr(codecs[0], "endian", None), "value", "little") if codecs else ""
    whole_rows = array.ndim == 1 or array.chunks[1] == array.shape[1]
    return bool(native and endian == "little" and whole_rows and array.dtype.kind in "fiu")


def _local_root(store: Any) -> Path | None:
    """The folder of a store on a local disk, as a path or as the file system by which Dask opens one."""
    if type(store) is LocalStore:
        return Path(store.root)
    if type(store) is FsspecStore and isinstance(getattr(store.fs, "sync_fs", None), LocalFileSystem):
        return Path(store.path)
    return None


class PlainChunks:
    """A zarr array with one more way to be read, `read_into`."""

    def __init__(self, array: zarr.Array) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim, self.chunks = array.shape, array.dtype, array.ndim, array.chunks
        root = _local_root(array.store_path.store)
        assert root is not None
        self._root = root / array.store_path.path
        self._checked = len(array.metadata.codecs) > 1  # type: ignore[union-attr]

    @property
    def store_path(self) -> Any:
        return self.array.store_path

    def __getitem__(self, key: Any) -> Any:
        return self.array[key]

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill `out`, (n,) or (n, c) contiguous and of this dtype, with the rows from `start`."""
        length = self.chunks[0]
        row = start
        while row < start + len(out):
            chunk, skipped = divmod(row, length)
            n_rows = min(length - skipped, start + len(out) - row)
            target = out[row - start : row - start + n_rows]
            if not self._read_chunk(chunk, skipped, target):
                target[...] = self.array[row : row + n_rows]
            row += n_rows

    def _read_chunk(self, chunk: int, skipped: int, target: np.ndarray) -> bool:
        """True if the rows came from a chunk file of the right size, and all of it has the checksum it says."""
        index = (chunk,) + (0,) * (self.ndim - 1)
        path = self._root / self.array.metadata.encode_chunk_key(index)
        row_bytes = target.nbytes // len(target)
        whole = row_bytes * self.chunks[0]
        said = bytearray(CHECKSUM_BYTES if self._checked else 0)
        if self._checked and target.nbytes < whole:
            return False
        try:
            with open(path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != whole + len(said):
                    return False
                view = memoryview(target.data).cast("B")
                if not _read_all(file, view, skipped * row_bytes) or not _read_all(file, memoryview(said), whole):
                    return False
        except FileNotFoundError:
            if writing_of(self.array) is not None:
                raise FileNotFoundError(f"chunk {chunk} is missing: {why_missing(self.array)}") from None
            return False
        return not self._checked or google_crc32c.value(target.reshape(-1).view("u1")) == int.from_bytes(
            said, sys.byteorder
        )


def _read_all(file: Any, view: memoryview, offset: int) -> bool:
    """Whether a file had as many bytes as are wanted of it."""
    done = 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], offset + done)
        if got == 0:
            return False
        done += got
    return True
