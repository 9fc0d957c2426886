"""Rows that have not been read as Dask arrays cut alike, and functions of a block of them as lazy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np

from lrgls_dask.rows.block import side_by_side, weights_of_shown
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.resources import one_blas_thread
from lrgls_dask.rows.rows import CellWeights, Part, Rows

__all__ = ["LazyRows", "RowFunction"]

RowFunction = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None, Any], np.ndarray]
"""(x (n, q), y (n, K) or None, weights or None, params) -> (n, c), float64: what one block of rows gives.

weights : (n, 1) of rows, (n, K) of cells, or (1, K) where those are the same in all rows."""


@dataclass(frozen=True, eq=False)
class LazyRows:
    """X, Y and weights as Dask arrays whose row chunks are the same.

    Make it once for all that is computed from the rows: results that share these arrays share their reads.
    weights : as they are stored, of rows or of cells.  cells : what those of cells are, or None.
    heights : rows of each block.  offset : (N, K) effects that were absorbed, None where none were.  codes : the groups
    that have them.
    """

    x: tuple[da.Array, ...]
    y: tuple[da.Array, ...]
    weights: tuple[da.Array, ...]
    cells: CellWeights | None
    heights: tuple[int, ...]
    offset: da.Array | None = None
    codes: tuple[da.Array, ...] = ()

    @classmethod
    def of(cls, rows: Rows, effects: np.ndarray | None = None) -> LazyRows:
        """The rows, cut as a pass would cut them; nothing is read.  effects : (G + 1, K) of the groups, and of none."""
        heights = _heights(rows)
        x, y, weights = (tuple(_cut(part, heights) for part in of) for of in (rows.x, rows.y, rows.weight_parts))
        offset: da.Array | None = None
        groups: tuple[da.Array, ...] = ()
        if effects is not None and rows.absorb is not None:
            tables = dask.delayed(effects, pure=True, traverse=False)
            wide, groups = (heights, (effects.shape[1],)), (_cut(rows.absorb.part, heights),)
            offset = da.map_blocks(
                _summed, *groups, tables=tables, dtype=np.float64, chunks=wide, meta=np.empty((0, 0))
            )
        return cls(
            x, y, weights, None if rows.cells is None else replace(rows.cells, parts=()), heights, offset, groups
        )

    def map(
        self,
        function: RowFunction,
        params: Any,
        n_columns: int,
        *,
        response: bool = False,
        weighted: bool = False,
        onto: bool = False,
        grouped: bool = False,
    ) -> da.Array:
        """(N, n_columns) `function` of every block: one task a block, nothing read yet.

        params : what the function needs besides rows; it travels to each worker once, not with each task.
        response, weighted : whether it looks at Y, less effects that were absorbed, and at the weights where there are
        any.  onto : whether what it gives are responses, which have these effects.  grouped : whether it looks at the
        groups that have them, behind the columns of X.
        The row chunks are equal but for a smaller last one, as zarr wants them.
        """
        x = (*self.x, *self.codes) if grouped else self.x
        y = self.y if response else ()
        w = self.weights if weighted else ()
        offset = () if self.offset is None or not (response or onto) else (self.offset,)
        made = da.map_blocks(
            _apply,
            *x,
            *y,
            *w,
            *offset,
            function=function,
            params=dask.delayed((params, self.cells if weighted else None), pure=True, traverse=False),
            n_x=len(x),
            n_y=len(y),
            n_offset=len(offset),
            onto=onto,
            dtype=np.float64,
            chunks=(self.heights, (n_columns,)),
            meta=np.empty((0, 0)),
        )
        largest = max(self.heights)
        uniform = all(height == largest for height in self.heights[:-1])
        return made if uniform else made.rechunk({0: largest})


def _heights(rows: Rows) -> tuple[int, ...]:
    """Rows of each block: those of a pass, made equal where any cut is free."""
    blocks = cut_rows(rows, 0).blocks
    if any(part.row_chunks is not None for part in rows.parts):
        return tuple(int(n) for n in np.diff(blocks))
    height = int(np.diff(blocks).max())
    whole, rest = divmod(rows.n_obs, height)
    return (height,) * whole + ((rest,) if rest else ())


def _cut(part: Part, heights: tuple[int, ...]) -> da.Array:
    array = part.array
    if not isinstance(array, da.Array):
        # Names made from contents let results share reads of files; of memory they would only cost a look at all of it.
        name = False if isinstance(array, np.ndarray) else None
        array = da.from_array(array, chunks=(heights, *array.shape[1:]), name=name)
    if array.ndim == 1:
        array = array[:, None]
    return array.rechunk({0: heights})


def _summed(codes: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """(n, K) the effects of the groups of each row."""
    found: np.ndarray = tables[codes[:, 0]]
    for more in codes.T[1:]:
        found += tables[more]
    return found


def _apply(
    *arrays: np.ndarray, function: RowFunction, params: Any, n_x: int, n_y: int, n_offset: int, onto: bool
) -> np.ndarray:
    offset, arrays = (arrays[-1], arrays[:-1]) if n_offset else (None, arrays)
    x = np.asarray(side_by_side(arrays[:n_x]), dtype=np.float64)
    y = np.asarray(side_by_side(arrays[n_x : n_x + n_y]), dtype=np.float64) if n_y else None
    rest, (mine, cells) = arrays[n_x + n_y :], params
    if y is not None and offset is not None:
        y = y - offset
    weights = np.asarray(side_by_side(rest), dtype=np.float64) if rest else None
    if cells is not None:
        weights = cells.of_cells(weights)
    if weights is not None and y is not None and np.isnan(weights).any():
        one = weights.shape[1] == 1
        weights = weights_of_shown(weights, np.isnan(y), np.arange(y.shape[1]) * (not one))
    with one_blas_thread:
        found = function(x, y, weights, mine)
    return found + offset if onto and offset is not None else found
