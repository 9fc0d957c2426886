"""Rows with holes, slab by slab, as the kernels want them.

The responses of a slab and what it shows are float64 side by side. Its regressors are filled in tile by tile, each
right before it is multiplied: so it is in the processor's cache then, and nothing of the width of X is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrgls_dask.rows.block import Block, width_of
from lrgls_dask.rows.kernels import even_rows, fill, scratch, slab_rows, stretches
from lrgls_dask.rows.tiles import Index, Side

__all__ = ["BlockRows", "MaskedSlab", "block_slabs"]


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


@dataclass(frozen=True, eq=False)
class MaskedSlab:
    """Some rows, less `origin` and times the square root of their weights.

    regressors : X, an array (n, q) or rows of a block.  y : (n, K), zero where missing; the kernels spend it.
    observed : (n, K), one or zero.  hidden : flat positions of what is missing.
    unit : (n,) what the row holds of the constant that `origin` is a multiple of, None where that is one throughout.
    count : (n,) rows that the pattern of this row is counted for, None where that is one throughout.
    """

    regressors: np.ndarray | BlockRows
    y: np.ndarray
    observed: np.ndarray
    hidden: np.ndarray
    unit: np.ndarray | None
    count: np.ndarray | None

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
    memory = [scratch(use, (height, n_y)) for use in ("y of a slab", "observed")]
    for rows, _, keep, weights in stretches(block, height):
        y, observed = (each[: rows.stop - rows.start] for each in memory)
        fill(y, block.y, rows.start, rows.stop, origin[side.width :])
        root = None
        count = None if counts is None else counts[rows][keep].astype(np.float64)
        weigh = weights if count is None else count if weights is None else weights * count
        if weigh is not None:
            root = np.sqrt(weigh)
            y, observed = y[keep], observed[: len(root)]
            y *= root[:, None]
        missing = np.isnan(y)
        hidden = np.flatnonzero(missing)
        y.reshape(-1)[hidden] = 0.0
        np.copyto(observed, ~missing)
        regressors = BlockRows(side, rows, keep if root is not None else slice(None), origin[: side.width], root)
        yield MaskedSlab(regressors, y, observed, hidden, root, count)
