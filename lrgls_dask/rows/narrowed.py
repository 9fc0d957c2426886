"""Rows of some equations only: the columns of the others are not looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np

from lrgls_dask.design.design import as_slice
from lrgls_dask.design.narrowed import Narrowed
from lrgls_dask.rows.rows import Part, Rows

__all__ = ["narrowed_rows", "only_columns"]


@dataclass(frozen=True, eq=False)
class ChosenColumns:
    """Some columns of a stored array, chosen as rows are read.  array : the whole one."""

    array: Any
    columns: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.array.shape[0]), len(self.columns)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        # of Dask's index, which has columns too, these are all
        return _columns(np.asarray(self.array[rows[0] if isinstance(rows, tuple) else rows]), self.columns)


def narrowed_rows(rows: Rows, kept: Narrowed) -> Rows:
    """The rows of the equations that were kept; nothing is read, of arrays in memory the columns kept are copied."""
    cells = rows.cells
    return replace(
        rows,
        x=only_columns(rows.x, kept.given),
        y=only_columns(rows.y, kept.equations),
        design=kept.design,
        cells=None if cells is None else replace(cells, weighting=cells.weighting[kept.equations]),
    )


def only_columns(parts: tuple[Part, ...], columns: np.ndarray) -> tuple[Part, ...]:
    """The parts with these columns (c,), ascending, of all of theirs; nothing is read."""
    chosen, first = [], 0
    for part in parts:
        mine = columns[(columns >= first) & (columns < first + part.n_columns)] - first
        first += part.n_columns
        if len(mine) == part.n_columns:
            chosen.append(part)
        elif len(mine) and isinstance(part.array, np.ndarray):
            chosen.append(replace(part, array=_columns(part.array, mine)))
        elif len(mine) and isinstance(part.array, da.Array):
            chosen.append(replace(part, array=part.array[:, as_slice(mine)]))
        elif len(mine):
            chosen.append(replace(part, array=ChosenColumns(part.array, mine)))
    return tuple(chosen)


def _columns(array: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A view of columns side by side, else a copy that is laid out by rows, as what is read is."""
    at = as_slice(columns)
    return np.asarray(array[:, at] if isinstance(at, slice) else array.take(at, axis=1))
