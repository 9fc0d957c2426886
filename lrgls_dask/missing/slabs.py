"""Rows with holes, slab by slab, as the kernels want them.

The responses of a slab and what it shows are float64 side by side. Its regressors are filled in tile by tile, each
right before it is multiplied: so it is in the processor's cache then, and nothing of the width of X is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lrgls_dask.rows.block import Block, missing_in, width_of
from lrgls_dask.rows.kernels import even_rows, fill, scratch, slab_rows, stretches
from lrgls_dask.rows.tiles import Index, Side
from lrgls_dask.sigma.shown import Factors, Posterior, capacitances, posterior

__all__ = ["BlockRows", "MaskedSlab", "block_slabs", "spare_rows"]

STRETCH_BYTES = 2**21  # of what a stretch of slabs shows
POSTERIOR = 2**17  # numbers of the factors' distribution in the rows of a stretch


@dataclass(frozen=True, eq=False)
class BlockRows:
    """X of some rows of a block, of which `keep` are taken, less `less` (q,) and times `root` (n,) if any."""

    side: Side
    rows: slice
    keep: slice | np.ndarray
    less: np.ndarray
    root: np.ndarray | None

    def columns(self, columns: Index) -> np.ndarray:
        """(n, c), in memory that the next ones take."""
        less = self.less[columns]
        return self._filled(scratch("tile", (self.rows.stop - self.rows.start, len(less))), columns, less)

    def whole(self) -> np.ndarray:
        """(n, q), in memory that the next slab takes."""
        memory = scratch("x of a slab", (self.rows.stop - self.rows.start, self.side.width))
        return self._filled(memory, slice(0, self.side.width), self.less)

    def _filled(self, values: np.ndarray, columns: Index, less: np.ndarray) -> np.ndarray:
        self.side.fill(values, self.rows, columns, less)
        values = values[self.keep]
        if self.root is not None:
            values *= self.root[:, None]
        return values


@dataclass(eq=False)
class Stretch:
    """Consecutive slabs. What they show is found together, and their small matrices are factored together: slab by slab
    these are many short calls, in which threads wait for each other.

    first : row of the block.  observed : (n, K) of all rows, one or zero, in memory that the next stretch takes.
    hidden : flat positions of what is missing, each in its slab; ends : up to where those of each slab go.
    height : rows of a slab.  kept : per Sigma, from which row on, and what these say.
    """

    first: int
    observed: np.ndarray
    hidden: np.ndarray
    ends: list[int]
    height: int
    kept: list[tuple[Factors, int, Posterior]] = field(default_factory=list)

    @classmethod
    def of(cls, block: Block, rows: slice, height: int) -> Stretch:
        """Of some rows of a block."""
        missing = missing_in(tuple(array[rows] for array in block.y))
        observed = scratch("observed", missing.shape)
        np.copyto(observed, ~missing)
        size = height * missing.shape[1]
        hidden = np.flatnonzero(missing)
        ends = np.searchsorted(hidden, np.arange(0, missing.size + size, size)).tolist()
        if len(ends) > 2:
            hidden %= size
        return cls(rows.start, observed, hidden, ends, height)

    def hidden_of(self, slab: int) -> np.ndarray:
        """Flat positions in a slab."""
        return self.hidden[self.ends[slab] : self.ends[slab + 1]]

    def posterior(self, first: int, sigma: Factors, numbers: int) -> Posterior:
        """Of the slab from a row on; up to so many numbers of those that follow are kept until they are asked for."""
        for i, (of, begin, found) in enumerate(self.kept):
            if of is sigma and begin <= first < begin + len(found.log_det):
                return found.of(slice(first - begin, first - begin + self.height))
            if of is sigma:
                del self.kept[i]
                break
        n_slabs = max(1, numbers // (Posterior.numbers(sigma) * self.height))
        found = posterior(capacitances(self.observed[first : first + n_slabs * self.height], sigma))
        if n_slabs > 1:
            self.kept.append((sigma, first, found))
        return found.of(slice(0, self.height))


@dataclass(frozen=True, eq=False)
class MaskedSlab:
    """Some rows, less `origin` and times the square root of their weights.

    regressors : X, an array (n, q) or rows of a block.  y : (n, K), zero where missing; the kernels spend it.
    observed : (n, K), one or zero.  hidden : flat positions of what is missing.
    unit : (n,) what the row holds of the constant that `origin` is a multiple of, None where that is one throughout.
    count : (n,) rows that the pattern of this row is counted for, None where that is one throughout.
    stretch : what it is a slab of, if anything, from row `first` on.  keep : which of these rows it has, None for all.
    """

    regressors: np.ndarray | BlockRows
    y: np.ndarray
    observed: np.ndarray
    hidden: np.ndarray
    unit: np.ndarray | None
    count: np.ndarray | None
    stretch: Stretch | None = None
    first: int = 0
    keep: np.ndarray | None = None

    @classmethod
    def of(
        cls, x: np.ndarray, y: np.ndarray, observed: np.ndarray, unit: np.ndarray | None, count: np.ndarray | None
    ) -> MaskedSlab:
        """Of rows in memory."""
        return cls(x, y, observed, np.flatnonzero(observed == 0), unit, count)

    @cached_property
    def x(self) -> np.ndarray:
        """(n, q)."""
        return self.regressors.whole() if isinstance(self.regressors, BlockRows) else self.regressors

    def posterior(self, sigma: Factors, numbers: int = POSTERIOR) -> Posterior:
        """Of its rows.  numbers : that may be kept for this Sigma until the slabs that follow ask for theirs."""
        if self.stretch is None:
            return posterior(capacitances(self.observed, sigma))
        found = self.stretch.posterior(self.first, sigma, numbers)
        return found if self.keep is None else found.of(self.keep)

    def columns(self, columns: Index) -> np.ndarray:
        """(n, c) of X, in memory that the next ones may take."""
        return self.regressors.columns(columns) if isinstance(self.regressors, BlockRows) else self.x[:, columns]


def block_slabs(block: Block, origin: np.ndarray, counts: np.ndarray | None = None) -> Iterator[MaskedSlab]:
    """The rows of positive weight of a block, slab by slab; NaN in Y is a missing value.

    Each is valid until the next is asked for: one memory serves them all.
    counts : (n,) how often each row is counted; None for once.
    """
    side, n_y = Side(block.x), width_of(block.y)
    height = even_rows(block.n_rows, slab_rows(side.width + n_y))
    memory = scratch("y of a slab", (height, n_y))
    together = max(1, STRETCH_BYTES // (8 * height * max(1, n_y))) * height
    stretch: Stretch | None = None
    for rows, _, keep, weights in stretches(block, height):
        if stretch is None or rows.start >= stretch.first + len(stretch.observed):
            stretch = Stretch.of(block, slice(rows.start, min(rows.start + together, block.n_rows)), height)
        first = rows.start - stretch.first
        y, observed = memory[: rows.stop - rows.start], stretch.observed[first : first + height]
        hidden, root = stretch.hidden_of(first // height), None
        fill(y, block.y, rows.start, rows.stop, origin[side.width :])
        count = None if counts is None else counts[rows][keep].astype(np.float64)
        weigh = weights if count is None else count if weights is None else weights * count
        kept = None if isinstance(keep, slice) else keep
        if weigh is not None:
            root = np.sqrt(weigh)
            if kept is not None:
                y, observed = y[kept], observed[kept]
                hidden = np.flatnonzero(observed == 0)
            y *= root[:, None]
        y.reshape(-1)[hidden] = 0.0
        regressors = BlockRows(side, rows, keep if root is not None else slice(None), origin[: side.width], root)
        yield MaskedSlab(regressors, y, observed, hidden, root, count, stretch, first, kept)


def spare_rows(shape: tuple[int, int]) -> np.ndarray:
    """Memory of the size of a slab's Y, for the one use at hand."""
    return scratch("spare rows", shape)
