"""Rows that have not been read as Dask arrays cut alike, and functions of a block of them as lazy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np

from lrgls_dask.rows.block import side_by_side
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
    heights : rows of each block.
    """

    x: tuple[da.Array, ...]
    y: tuple[da.Array, ...]
    weights: tuple[da.Array, ...]
    cells: CellWeights | None
    heights: tuple[int, ...]

    @classmethod
    def of(cls, rows: Rows) -> LazyRows:
        """The rows, cut as a pass would cut them; nothing is read."""
        heights = _heights(rows)
        x, y, weights = (tuple(_cut(part, heights) for part in of) for of in (rows.x, rows.y, rows.weight_parts))
        return cls(x, y, weights, None if rows.cells is None else replace(rows.cells, parts=()), heights)

    def map(
        self,
        function: RowFunction,
        params: Any,
        n_columns: int,
        *,
        response: bool = False,
        weighted: bool = False,
    ) -> da.Array:
        """(N, n_columns) `function` of every block: one task a block, nothing read yet.

        params : what the function needs besides rows; it travels to each worker once, not with each task.
        response, weighted : whether it looks at Y, and at the weights where there are any.
        The row chunks are equal but for a smaller last one, as zarr wants them.
        """
        y = self.y if response else ()
        w = self.weights if weighted else ()
        made = da.map_blocks(
            _apply,
            *self.x,
            *y,
            *w,
            function=function,
            params=dask.delayed((params, self.cells if weighted else None), pure=True, traverse=False),
            n_x=len(self.x),
            n_y=len(y),
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


def _apply(*arrays: np.ndarray, function: RowFunction, params: Any, n_x: int, n_y: int) -> np.ndarray:
    x = np.asarray(side_by_side(arrays[:n_x]), dtype=np.float64)
    y = np.asarray(side_by_side(arrays[n_x : n_x + n_y]), dtype=np.float64) if n_y else None
    rest, (mine, cells) = arrays[n_x + n_y :], params
    weights = np.asarray(side_by_side(rest), dtype=np.float64) if rest else None
    if cells is not None:
        weights = cells.of_cells(weights)
    with one_blas_thread:
        return function(x, y, weights, mine)
