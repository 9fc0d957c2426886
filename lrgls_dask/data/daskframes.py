"""Dask frames: counted once, so that rows have labels and lengths, and as Dask arrays of float64."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd

from lrgls_dask.data.numbers import check_real, same_plain_dtype

__all__ = ["CountedFrame", "counted"]


@dataclass(frozen=True, eq=False)
class CountedFrame:
    """A Dask frame or series whose rows have been counted; its values are unread.

    index : (N,) its labels.  lengths : rows of each partition.
    """

    frame: Any
    index: pd.Index
    lengths: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return int(self.frame.ndim)

    @property
    def columns(self) -> pd.Index | None:
        """Labels of the columns; None of a series."""
        return pd.Index(self.frame.columns) if self.ndim > 1 else None

    @property
    def name(self) -> Hashable:
        """Of a series."""
        name: Hashable = self.frame.name
        return name

    def select(self, places: list[int]) -> CountedFrame:
        """The columns at these places."""
        return replace(self, frame=self.frame[self.frame.columns[places].tolist()])

    def numbers(self, name: str) -> da.Array:
        """(N, c) or (N,): as they are where all columns have one NumPy dtype, else float64, NA as NaN; lazy.

        Raises TypeError naming a column that holds no real numbers.
        """
        dtypes = [self.frame.dtype] if self.ndim == 1 else list(self.frame.dtypes)
        titles = [name] if self.columns is None else [f"{name}[{label!r}]" for label in self.columns]
        for title, dtype in zip(titles, dtypes, strict=True):
            check_real(title, dtype, "Float64")
        return self._array(self.frame if same_plain_dtype(dtypes) else self.frame.astype("float64"))

    def labels(self) -> da.Array:
        """(N,) the values of a series of labels, of any kind; lazy."""
        return self._array(self.frame if same_plain_dtype([self.frame.dtype]) else self.frame.astype(object))

    def _array(self, frame: Any) -> da.Array:
        # of files of which few columns are read Dask joins partitions, in arrays and as it optimises them
        parts = frame.to_delayed()
        if len(parts) != len(self.lengths):
            parts = frame.to_delayed(optimize_graph=False)
        shape, dtypes = frame.shape[1:], [frame.dtype] if frame.ndim == 1 else list(frame.dtypes)
        values = dask.delayed(np.asarray, pure=True)
        made: da.Array = da.concatenate(
            [
                da.from_delayed(values(part), (length, *shape), np.result_type(*dtypes))
                for part, length in zip(parts, self.lengths, strict=True)
            ]
        )
        return made


def counted(*given: Any) -> tuple[Any, ...]:
    """What is given, each Dask frame in it counted; lists are looked into.

    Reads the indexes of all Dask frames, in one computation; nothing where there are none. Rows that Dask has numbered
    anew in each partition, as after reading several files, are numbered through.
    """
    listed = [each for item in given for each in (item if isinstance(item, list | tuple) else [item])]
    frames = {id(each): each for each in listed if _is_dask_frame(each)}
    if not frames:
        return given
    found = dask.compute(*(each.index.to_delayed(optimize_graph=False) for each in frames.values()))
    known = {
        key: _counted(each, list(map(pd.Index, pieces)))
        for (key, each), pieces in zip(frames.items(), found, strict=True)
    }
    return tuple(
        [known.get(id(each), each) for each in item] if isinstance(item, list | tuple) else known.get(id(item), item)
        for item in given
    )


def _is_dask_frame(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("to_dask_array", "npartitions", "index"))


def _counted(frame: Any, pieces: list[pd.Index]) -> CountedFrame:
    lengths = tuple(map(len, pieces))
    anew = all(piece.equals(pd.RangeIndex(len(piece))) for piece in pieces)
    index = pd.RangeIndex(sum(lengths), name=pieces[0].name) if anew else pieces[0].append(pieces[1:])
    return CountedFrame(frame, index, lengths)
