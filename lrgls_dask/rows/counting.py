"""Which of some rows have a say in a fit: those of positive weight that show a response."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.rows.block import Block, missing_in
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Sized
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass

__all__ = ["rows_that_count"]


def rows_that_count(rows: Rows, some: np.ndarray) -> np.ndarray:
    """Those of `some` rows, numbers (m,) ascending, that a fit looks at: one pass over Y, and X where it says so.

    Rows of weight zero and rows without a response are left out by any fit, and of `rows.complete_only` those that are
    not complete.
    """
    whole = rows.complete_only or rows.cells is not None
    weighting = None if rows.design.own is None else rows.design.own.weighting
    found: Counting = run_pass(
        rows if whole else replace(rows, x=()),
        CountingRows(some, weighting),
        None,
        partial_bytes=8 * len(some),
        meter=Meter(),
        label="rows that have no label",
        less_effects=False,
    )
    return np.sort(found.rows)


@dataclass(frozen=True, eq=False)
class Counting(Sized):
    """Numbers of rows (m,)."""

    rows: np.ndarray

    def __add__(self, other: Counting) -> Counting:
        return Counting(np.concatenate([self.rows, other.rows]))


@dataclass(frozen=True, eq=False)
class CountingRows:
    """A kernel of the numbers of the rows of a block that count.

    some : (m,) ascending, the only ones that are looked at.  weighting : (K,) by which column of weights of cells an
    equation was scaled; None where cells have none.
    """

    some: np.ndarray
    weighting: np.ndarray | None

    def __call__(self, block: Block, params: None = None) -> Counting:
        first, last = np.searchsorted(self.some, [block.start, block.start + block.n_rows])
        at = self.some[first:last] - block.start
        shows = ~missing_in(tuple(array[at] for array in block.y))
        if block.scaling is not None and self.weighting is not None:
            shows &= block.scaling.roots[at][:, self.weighting] > 0
        counts = shows.any(axis=1)
        if block.weights is not None:
            counts &= np.asarray(block.weights)[at] > 0
        return Counting(self.some[first:last][counts])
