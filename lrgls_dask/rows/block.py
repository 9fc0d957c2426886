"""A block of consecutive rows as it was read, and the naming of a value in it that no sum can use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.errors import BadValues
from lrgls_dask.rows.moments import Head, Scaling

__all__ = ["Block", "as_columns", "bad_values", "missing_in", "side_by_side", "weights_of_shown", "width_of"]

LARGEST = 1e150  # whose square is still a number


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows, as stored: x and y are tuples of (n,) or (n, c) arrays of any real dtype.

    cells : weights of cells as stored, by which rows are not scaled yet.  scaling : by what they have been.
    codes : (n, L) the groups whose effects are absorbed.
    """

    start: int
    x: tuple[np.ndarray, ...]
    y: tuple[np.ndarray, ...]
    weights: np.ndarray | None
    cells: tuple[np.ndarray, ...] = ()
    scaling: Scaling | None = None
    codes: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        return int((*self.x, *self.y)[0].shape[0])

    def take(self, rows: slice | np.ndarray) -> Block:
        """Some of the rows, with the number of the block's first."""
        x, y, cells = (tuple(array[rows] for array in arrays) for arrays in (self.x, self.y, self.cells))
        weights = None if self.weights is None else np.asarray(self.weights)[rows]
        scaling = None if self.scaling is None else self.scaling.take(rows)
        return Block(self.start, x, y, weights, cells, scaling, None if self.codes is None else self.codes[rows])

    def copy(self) -> Block:
        """The same in memory of its own, for who keeps it: a pass reads the next block where it read this one."""
        x, y, cells = (tuple(np.array(array) for array in arrays) for arrays in (self.x, self.y, self.cells))
        weights = None if self.weights is None else np.array(self.weights)
        return Block(self.start, x, y, weights, cells, self.scaling, self.codes)

    def told(self, head: Head) -> Head:
        """The head of these rows, with what their scaling tells."""
        if self.scaling is None:
            return head
        used = slice(None) if self.weights is None else np.flatnonzero(self.weights)
        return self.scaling.take(used).told(head, side_by_side(self.x)[used])


def as_columns(array: np.ndarray) -> np.ndarray:
    """(n, c) an array (n,) or (n, c), of no rows too, as a view."""
    return array[:, None] if array.ndim == 1 else array


def side_by_side(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """(n, c) all columns of the arrays, without a copy where it is one array."""
    return as_columns(arrays[0]) if len(arrays) == 1 else np.column_stack(arrays)


def missing_in(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """(n, c) which numbers in the columns of the arrays are NaN."""
    return np.concatenate([np.isnan(as_columns(array)) for array in arrays], axis=1)


def weights_of_shown(weights: np.ndarray, missing: np.ndarray, weighting: np.ndarray) -> np.ndarray:
    """Weights (n, C) with 1 for NaN where no response (n, K) that they are of is there: nobody asks for those.

    weighting : (K,) which column of weights each response has.
    """
    columns = np.flatnonzero(np.isnan(weights).any(axis=0))
    found = np.array(weights)
    for column in columns.tolist():
        unseen = missing[:, weighting == column].all(axis=1)
        found[np.isnan(found[:, column]) & unseen, column] = 1.0
    return found


def width_of(arrays: tuple[np.ndarray, ...]) -> int:
    """Columns of all arrays together."""
    return sum(1 if a.ndim == 1 else a.shape[1] for a in arrays)


# ---------------------------------------------------------------------------------------------- bad values


def bad_values(block: Block) -> BadValues:
    """Name the first column with a value no sum can use; called once a sum has shown that there is one."""
    used = np.ones(block.n_rows, dtype=bool)
    if block.weights is not None:
        weights = np.asarray(block.weights, dtype=np.float64)[:, None]
        found = _first_bad(block, "weights", (weights,), used, (weights < 0)[:, 0])
        if found is not None:
            return found
        used = weights[:, 0] > 0
    for name, arrays in (("X", block.x), ("Y", block.y)):
        found = _first_bad(block, name, arrays, used)
        if found is not None:
            return found
    return _largest(block)


def _largest(block: Block) -> BadValues:
    """The value, roots of weights included, whose square made a sum overflow though every value has a square."""
    root = 1.0 if block.weights is None else np.sqrt(np.asarray(block.weights, dtype=np.float64))[:, None]
    found, stop = [], block.start + block.n_rows
    for name, arrays in (("X", block.x), ("Y", block.y)):
        if arrays:
            sizes = np.abs(side_by_side(arrays).astype(np.float64)) * root
            row, column = divmod(int(np.argmax(sizes)), sizes.shape[1])
            found.append((float(sizes[row, column]), name, column, row))
    _, name, column, row = max(found)
    return BadValues(name, column, "too large", block.start + row, 1, block.start, stop)


def _first_bad(
    block: Block, name: str, arrays: tuple[np.ndarray, ...], used: np.ndarray, negative: np.ndarray | None = None
) -> BadValues | None:
    column = 0
    for array in arrays:
        for values in as_columns(np.asarray(array, dtype=np.float64)).T:
            # squares are summed, so a finite value whose square overflows is unusable too
            bad = (~np.isfinite(values) | (np.abs(values) > LARGEST)) & used
            if negative is not None:
                bad |= negative
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                what = _what(float(values[first]))
                stop = block.start + block.n_rows
                return BadValues(name, column, what, block.start + first, int(bad.sum()), block.start, stop)
            column += 1
    return None


def _what(value: float) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "infinite"
    return "negative" if -LARGEST < value < 0 else "too large"
