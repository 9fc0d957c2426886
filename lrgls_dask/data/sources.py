"""From the user's arrays to `Part`s: shapes, dtypes and row chunks are checked here, before anything is read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
import xarray as xr

from lrgls_dask.data.daskframes import CountedFrame
from lrgls_dask.data.daskreads import zarr_behind
from lrgls_dask.data.numbers import check_real, numbers_of_masked, numbers_of_pandas
from lrgls_dask.data.plainchunks import plain_if_possible
from lrgls_dask.rows.rows import Part

__all__ = [
    "BLOCK_BYTES",
    "axis_labels",
    "block_parts",
    "chunk_lazily",
    "column_parts",
    "group_source",
    "raw_array",
    "row_chunks",
    "vectors_of",
]

MOST_CUTS = 256  # pieces into which the blocks of an array may be cut, in the order of its columns
BLOCK_BYTES = 16 * 2**20
"""Below the allocator's 32 MB mmap threshold, so that buffers are recycled, and large enough to hide per-task cost."""


def raw_array(name: str, data: Any) -> Any:
    """The array inside a pandas or xarray object, a list as NumPy; anything lazy stays lazy.

    Nullable, Arrow, sparse and mixed columns of frames and masked arrays become float64, NaN where a value is missing.
    Raises TypeError for what is no array, and for columns of frames that hold no real numbers.
    """
    if isinstance(data, xr.DataArray):  # which may hold an array of pandas or a masked one in turn
        return raw_array(name, chunk_lazily(data, data.dims[0] if data.dims else "").data)
    if isinstance(data, pd.DataFrame | pd.Series):
        return numbers_of_pandas(name, data)
    if isinstance(data, pd.Index | pd.api.extensions.ExtensionArray):
        return numbers_of_pandas(name, pd.Series(data))
    if isinstance(data, CountedFrame):
        return data.numbers(name)
    if isinstance(data, np.ma.MaskedArray):
        check_real(name, data.dtype)
        return numbers_of_masked(data)
    if sp.issparse(data):
        raise TypeError(
            f"{name} is a scipy sparse matrix but must be dense. Use .toarray(), or select columns by incidence."
        )
    if isinstance(data, list | tuple):
        try:
            return np.asarray(data)
        except ValueError as error:
            raise ValueError(f"{name} is a list that makes no rectangular array: {error}. Give one array.") from error
    if isinstance(data, da.Array):
        return _from_dask(name, data)
    if isinstance(data, np.matrix):  # whose slices and products are not those of arrays
        return np.asarray(data)
    if all(hasattr(data, attribute) for attribute in ("shape", "dtype", "ndim", "__getitem__")):
        return data
    raise TypeError(
        f"{name} is a {type(data).__name__} but must be a NumPy, Dask or zarr array, an xarray.DataArray, or a pandas "
        "or Dask frame. Use np.asarray(...)."
    )


def _from_dask(name: str, data: da.Array) -> da.Array:
    if any(np.isnan(length) for length in data.shape):
        raise ValueError(
            f"{name} is a Dask array with unknown chunk sizes, so its rows cannot be counted without reading. "
            "Call .compute_chunk_sizes() on it first."
        )
    if isinstance(data._meta, np.ma.MaskedArray):
        check_real(name, data.dtype)
        data = da.map_blocks(numbers_of_masked, data, dtype=np.float64, meta=np.empty((0,) * data.ndim))
    if not isinstance(data._meta, np.ndarray):
        raise TypeError(
            f"{name} is a Dask array of {type(data._meta).__name__} blocks but must have NumPy blocks. "
            "Use .map_blocks(...) to convert them."
        )
    if data.ndim and 0 in data.chunks[0] and data.shape[0]:
        return data.rechunk({0: tuple(length for length in data.chunks[0] if length)})
    return data


def chunk_lazily(data: xr.DataArray, obs: Hashable) -> xr.DataArray:
    """The variable unchanged if in memory or chunked; cut along obs if it is a file opened without chunks."""
    if data.chunks is not None or data.variable._in_memory or obs not in data.sizes:
        return data
    length = data.sizes[obs]
    row_bytes = max(1, data.nbytes // max(1, length))
    rows = max(1, BLOCK_BYTES // row_bytes)
    stored = data.encoding.get("preferred_chunks", {}).get(obs)
    if isinstance(stored, int) and stored > 0:
        rows = max(stored, rows // stored * stored)
    with warnings.catch_warnings():
        # other dims stay whole on purpose: one row must come out of one block
        warnings.filterwarnings("ignore", "The specified chunks separate the stored chunks", UserWarning)
        return data.chunk({obs: min(rows, max(1, length))})


def row_chunks(array: Any) -> tuple[int, ...] | None:
    """Lengths of the stored row chunks (of the shards where zarr has them); None where any cut is free."""
    if isinstance(array, np.ndarray):
        return None
    if isinstance(array, da.Array):
        return tuple(int(length) for length in array.chunks[0])
    outer = getattr(array, "shards", None) or getattr(array, "chunks", None)
    if not outer:
        return None
    n_obs, length = int(array.shape[0]), int(outer[0])
    whole, rest = divmod(n_obs, length)
    return (length,) * whole + ((rest,) if rest else ())


def ones(n_obs: int) -> np.ndarray:
    """(n_obs,) of ones, one number in memory."""
    return np.broadcast_to(np.int8(1), (n_obs,))


def column_parts(name: str, array: Any) -> list[Part]:
    """Parts of a raw (N,) or (N, c) array, one for each column chunk of a Dask array so that nothing is rechunked."""
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} has {array.ndim} dimensions, shape {tuple(array.shape)}, but must have rows and columns: (N,) or "
            "(N, columns). Reshape it."
        )
    check_real(name, array.dtype)
    if isinstance(array, da.Array):
        stored = zarr_behind(array)
        array = array if stored is None else stored
    rows = row_chunks(array)
    if isinstance(array, da.Array) and array.ndim == 2 and array.numblocks[1] > 1:
        stops = np.cumsum(array.chunks[1]).tolist()
        cuts = zip([0, *stops[:-1]], stops, strict=True)
        return [Part(name, array[:, start:stop], rows) for start, stop in cuts if stop > start]
    return [Part(name, plain_if_possible(array), rows)]


def block_parts(name: str, array: Any) -> tuple[list[Part], np.ndarray]:
    """Parts of a raw (N, K, m) array and the column (K, m) where each entry of its rows comes to lie.

    Equations may lie on several axes, (N, K1, K2, ..., m). Columns are in the order of the axes, the last fastest,
    whatever the chunks: Dask blocks are flattened one by one, cut where chunks along a later axis ask for it; rows are
    never rechunked. Chunks along the last axis are joined, and those of an axis that would cut blocks too often.
    """
    check_real(name, array.dtype)
    n_obs, *grid = array.shape
    places = np.arange(math.prod(grid)).reshape(grid)
    if not isinstance(array, da.Array):
        flat = (array if isinstance(array, np.ndarray) else da.from_array(array)).reshape(n_obs, places.size)
        return column_parts(name, flat), places
    whole = array.rechunk({array.ndim - 1: -1})
    cut = _last_cut(whole)
    while cut > 1 and math.prod(grid[: cut - 1]) > MOST_CUTS:
        whole = whole.rechunk({cut: -1})
        cut = _last_cut(whole)
    rows = row_chunks(whole)
    stops = np.cumsum(whole.chunks[cut]).tolist()
    ends = [(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True) if b > a]
    parts = []
    for before in np.ndindex(*grid[: cut - 1]):
        for start, stop in ends:
            block = whole[(slice(None), *before, slice(start, stop))]
            parts.append(Part(name, block.reshape(n_obs, math.prod(block.shape[1:])), rows))
    return parts, places


def _last_cut(array: da.Array) -> int:
    """The last axis in several chunks, the first after the rows where there is none."""
    return max([axis for axis in range(1, array.ndim) if array.numblocks[axis] > 1], default=1)


def group_source(name: str, data: Any) -> np.ndarray | Part:
    """Group labels of the rows, any dtype: NumPy if they are in memory, else an unread part."""
    array = _labels(name, data)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be 1-D with one label per row; found shape {tuple(array.shape)}. Pass one column."
        )
    return array if isinstance(array, np.ndarray) else Part(name, array, row_chunks(array))


def vectors_of(data: Any) -> list[Any]:
    """What is given for each row, one or several of them: columns of a frame or (N, m) array, or of a list of vectors.

    A list of other things, texts or numbers or tuples, is one vector of labels.
    """
    if isinstance(data, pd.DataFrame):
        return [data.iloc[:, i] for i in range(data.shape[1])]
    if isinstance(data, xr.Dataset):
        return list(data.data_vars.values())
    if isinstance(data, xr.DataArray) and data.ndim == 2:
        return [data.isel({data.dims[1]: i}) for i in range(data.shape[1])]
    if getattr(data, "ndim", 1) == 2 and hasattr(data, "columns"):  # a Dask frame
        return [data[name] for name in data.columns]
    if isinstance(data, list | tuple) and data and all(isinstance(each, list) or _is_vector(each) for each in data):
        return list(data)
    return [data[:, i] for i in range(data.shape[1])] if getattr(data, "ndim", 1) == 2 else [data]


def _is_vector(data: Any) -> bool:
    return getattr(data, "ndim", 0) == 1


def _labels(name: str, data: Any) -> Any:
    if isinstance(data, xr.DataArray) and isinstance(data.data, pd.api.extensions.ExtensionArray):
        data = data.data
    if isinstance(data, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        whole = pd.Series(data)
        kind = getattr(whole.dtype, "numpy_dtype", None)
        numbered = kind is not None and kind.kind in "iufb" and not whole.isna().any()
        return whole.to_numpy(dtype=kind) if numbered else np.asarray(whole)
    if isinstance(data, CountedFrame) and data.ndim == 1:
        return data.labels()
    if isinstance(data, np.ma.MaskedArray):
        if not np.ma.is_masked(data):
            return data.data
        values = np.array(data.data, dtype=object)
        values[np.ma.getmaskarray(data)] = None
        return values
    return raw_array(name, data)


def axis_labels(data: Any, axis: int) -> pd.Index | None:
    """Names of columns, equations or terms along an axis after the rows; None for a bare array or a default numbering.

    What rows are called is for `labels.row_labels` to say.
    """
    if isinstance(data, pd.DataFrame | pd.Series | CountedFrame):
        if axis >= data.ndim:
            return None
        index = data.columns
        unnumbered = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
        return None if unnumbered else index
    if isinstance(data, xr.DataArray) and axis < data.ndim:
        return data.indexes.get(data.dims[axis])
    return None
