"""Tiles of a block: some rows of the columns of some designs, few enough to stay in the processor's cache.

Designs of equal shape are multiplied together, by BLAS, whatever columns they use: columns that lie side by side are
filled in as they lie, others are gathered on the way, and designs that choose among few columns take one product with
all of these. So there is no Python loop over equations, and no float64 copy of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.batches import Batch, Batches
from lrgls_dask.design.design import as_slice
from lrgls_dask.rows.block import as_columns
from lrgls_dask.rows.sums import batched_sums, sums

__all__ = ["Columns", "Index", "Side", "Tile", "Tiles", "add_adjoint", "subtract_fitted"]

TILE_COLUMNS = 512  # of X: with a few hundred rows a megabyte, and enough for the calls to cost little
TILE_EQUATIONS = 512
# So many times the columns of a design cost no more in one dense product with all than gathered for each design.
DENSE = 16
DENSE_EQUATIONS = 256

Index = slice | np.ndarray
Columns = Callable[[Index], np.ndarray]  # (n, c) some of X, in memory that the next ones may take


@dataclass(frozen=True, eq=False)
class Tile:
    """Consecutive designs of one batch, and which of their equations.

    batch, designs, responses : where its coefficients stand, [designs, :, responses] of the batch's (G, p, m).
    columns : (c,) of X.  equations : (g m,).  shape : (g, p, m) of the coefficients.
    inside : (g, p) where the columns of each design stand among the c, None where they are g times p side by side.
    """

    batch: int
    designs: slice
    responses: slice
    columns: Index
    equations: Index
    shape: tuple[int, int, int]
    inside: np.ndarray | None

    @property
    def width(self) -> int:
        """c."""
        return _length(self.columns)

    @property
    def first_column(self) -> int:
        """The first of its columns in X."""
        return self.columns.start if isinstance(self.columns, slice) else int(self.columns.min())

    @property
    def is_first(self) -> bool:
        """Whether it is the first with these columns."""
        return self.responses.start == 0

    def part(self, views: list[np.ndarray]) -> np.ndarray:
        """Its coefficients (g, p, m), of those of all batches: a view."""
        return views[self.batch][self.designs, :, self.responses]

    def product(self, x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """x (n, c) times coefficients (g, p, m), (n, g m) in the order of its equations."""
        if self.inside is not None:
            matrix = np.zeros((self.width, _length(self.equations)))
            matrix[self._entries] = coefficients
            return np.asarray(x @ matrix)
        return np.asarray((self._apart(x) @ coefficients).transpose(1, 0, 2).reshape(len(x), -1))

    def adjoint(self, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        """X_g' values_g of each design, (g, p, m); x (n, c), values (n, g m) of its equations."""
        if self.inside is not None:
            return sums(x.T, values)[self._entries]
        g, _, m = self.shape
        by_design = np.ascontiguousarray(values.reshape(len(x), g, m).transpose(1, 0, 2))
        return batched_sums(self._apart(x).transpose(0, 2, 1), by_design)

    def gram(self, x: np.ndarray) -> np.ndarray:
        """X_g'X_g of each design, (g, p, p)."""
        if self.inside is not None:
            return sums(x.T, x)[self.inside[:, :, None], self.inside[:, None, :]]
        apart = self._apart(x)
        return batched_sums(apart.transpose(0, 2, 1), apart)

    def by_design(self, x: np.ndarray) -> np.ndarray:
        """(g, n, p) the columns of each design, of x (n, c)."""
        return self._apart(x) if self.inside is None else x[:, self.inside].transpose(1, 0, 2)

    def _apart(self, x: np.ndarray) -> np.ndarray:
        """(g, n, p) view of x (n, c)."""
        g, p, _ = self.shape
        return x.reshape(len(x), g, p).transpose(1, 0, 2)

    @property
    def _entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the coefficients (g, p, m) stand in a (c, g m) matrix."""
        assert self.inside is not None
        g, _, m = self.shape
        return self.inside[:, :, None], np.arange(g * m).reshape(g, 1, m)


@dataclass(frozen=True, eq=False)
class Tiles:
    """All coefficients of a design, tile by tile; every equation is in one tile."""

    each: tuple[Tile, ...]
    batches: Batches

    @classmethod
    def of(cls, batches: Batches) -> Tiles:
        """Tiles near each other in X follow each other, so that a row's cache lines serve designs of several shapes."""
        tiles = [tile for i, batch in enumerate(batches.each) for tile in _tiles(i, batch)]
        return cls(tuple(sorted(tiles, key=lambda tile: tile.first_column)), batches)

    @property
    def width(self) -> int:
        """Columns of the widest tile."""
        return max(tile.width for tile in self.each)

    @property
    def most_equations(self) -> int:
        """Of a tile."""
        return max(_length(tile.equations) for tile in self.each)

    def unused(self, n_columns: int) -> np.ndarray:
        """Columns of X that no equation uses."""
        free = np.ones(n_columns, dtype=bool)
        for tile in self.each:
            free[tile.columns] = False
        return np.flatnonzero(free)


def _tiles(number: int, batch: Batch) -> list[Tile]:
    n_designs, p, m = batch.places.shape
    n_responses = min(m, TILE_EQUATIONS)
    found, first = [], 0
    while first < n_designs:
        last, inside, columns = _together(batch, first)
        designs = slice(first, last)
        for begin in range(0, m, n_responses):
            responses = slice(begin, min(begin + n_responses, m))
            equations = as_slice(batch.equations[designs, responses].ravel())
            shape = (last - first, p, responses.stop - begin)
            found.append(Tile(number, designs, responses, columns, equations, shape, inside))
        first = last
    return found


def _together(batch: Batch, first: int) -> tuple[int, np.ndarray | None, Index]:
    """Up to which design the columns of a tile go that begins with one, and which these are, as of a `Tile`."""
    n_designs, p, m = batch.places.shape
    last = min(n_designs, first + max(1, DENSE_EQUATIONS // m))
    taken = batch.columns[first:last]
    union = np.unique(taken)
    once = bool(np.diff(np.sort(taken, axis=1), axis=1).all())  # a design may have a column twice
    if len(union) < taken.size and len(union) <= DENSE * p and once:
        return last, np.searchsorted(union, taken), as_slice(union)
    last = min(n_designs, first + max(1, min(TILE_COLUMNS // p, TILE_EQUATIONS // m)))
    return last, None, as_slice(batch.columns[first:last].ravel())


def subtract_fitted(values: np.ndarray, columns: Columns, coefficients: np.ndarray, tiles: Tiles) -> None:
    """Subtract [X_1 b_1 ... X_K b_K] from values (n, K) of rows whose columns of X are asked for; flat b (P,)."""
    views = tiles.batches.split(coefficients)
    for tile in tiles.each:
        values[:, tile.equations] -= tile.product(columns(tile.columns), tile.part(views))


def add_adjoint(total: np.ndarray, columns: Columns, values: np.ndarray, tiles: Tiles) -> None:
    """Add X_j' values_j of every equation to total, flat (P,); values (n, K) of rows whose columns are asked for."""
    views = tiles.batches.split(total)
    for tile in tiles.each:
        tile.part(views)[...] += tile.adjoint(columns(tile.columns), values[:, tile.equations])


def _length(index: Index) -> int:
    return index.stop - index.start if isinstance(index, slice) else len(index)


class Side:
    """The columns of several arrays (n,) or (n, c) side by side, filled into float64 as they are asked for."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        self._arrays = [as_columns(array) for array in arrays]
        self._starts = np.cumsum([0, *(array.shape[1] for array in self._arrays)])
        self.width = int(self._starts[-1])

    def as_stored(self, rows: slice) -> np.ndarray | None:
        """Some rows of all columns, where they lie so in memory that BLAS takes them."""
        (first, *others) = self._arrays
        fine = not others and first.dtype == np.float64 and first.dtype.isnative and first.flags.c_contiguous
        return first[rows] if fine else None

    def fill(self, out: np.ndarray, rows: slice, columns: Index, less: np.ndarray | None) -> None:
        """out (n, c) = some rows of some columns, less one number a column, less (c,) if any."""
        first = columns.start if isinstance(columns, slice) else int(columns.min())
        last = columns.stop - 1 if isinstance(columns, slice) else int(columns.max())
        from_, to = (int(p) - 1 for p in np.searchsorted(self._starts, [first, last], side="right"))
        for part in range(from_, to + 1):
            start, stop = int(self._starts[part]), int(self._starts[part + 1])
            array = self._arrays[part][rows]
            if isinstance(columns, slice):
                here = slice(max(start, columns.start) - columns.start, min(stop, columns.stop) - columns.start)
                taken = array[:, max(start, columns.start) - start : min(stop, columns.stop) - start]
                _less(taken, None if less is None else less[here], out[:, here])
            elif from_ == to:
                _less(_gathered(array, columns - start), less, out)
            else:
                where = np.flatnonzero((columns >= start) & (columns < stop))
                taken = _gathered(array, columns[where] - start)
                out[:, where] = taken if less is None else taken - less[where]


def _less(values: np.ndarray, less: np.ndarray | None, out: np.ndarray) -> None:
    if less is None:
        np.copyto(out, values)
    else:
        np.subtract(values, less, out=out, dtype=np.float64, casting="same_kind")


def _gathered(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[:, columns]; np.take is twice as fast as the index, but copies all of an array that is not contiguous."""
    return values.take(columns, axis=1) if values.flags.c_contiguous else values[:, columns]
