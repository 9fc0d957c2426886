"""What one block of rows contributes. Pure NumPy: no Dask, no labels, no files.

A kernel is a function ``kernel(block, params) -> Moments``; Moments add with ``+``, and the sum over any partition of
the rows is the same up to rounding. Blocks are worked through in slabs that stay in the processor's cache, so no
kernel copies a whole block, and every storage dtype is promoted to float64 slab by slab.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Any

import numpy as np

from lrgls_dask.design.design import DesignGroup
from lrgls_dask.rows.block import LARGEST, Block, as_columns, bad_values, width_of
from lrgls_dask.rows.moments import GramMoments, Head, RootMoments, StackedRows, reduced
from lrgls_dask.rows.sums import sums

__all__ = [
    "CompleteRows",
    "checked_weights",
    "even_rows",
    "fill",
    "forward",
    "gram_kernel",
    "regressor_gram_kernel",
    "regressor_rows_kernel",
    "root_kernel",
    "row_of",
    "scratch",
    "slab_rows",
    "slabs",
    "stretches",
    "usable",
]

SLAB_BYTES = 2 * 2**20  # a slab and the triangle it updates stay in the processor's cache
ANCHOR_ROWS = 64  # enough for a mean within a fraction of the spread
MAPPED = 2**20  # bytes from which on a copy that is kept for long is a mapping of its own
LARGEST_KEPT = 32 * 2**20  # bytes of scratch memory a thread keeps
SLAB_ROWS = 256  # but never so few rows that a rank-n update is all overhead


# ---------------------------------------------------------------------------------------------- kernels


def gram_kernel(block: Block, params: None = None) -> GramMoments | None:
    """GramMoments of a block of n rows and M = q + K columns, n M^2 flops (SYRK); None if no row has weight.

    Rows are taken less the mean of a few first ones: what the whole block's mean differs from it is small beside the
    spread, and is taken out once at the end.
    """
    anchor = _first_mean(block)
    if anchor is None:
        return None
    cross = np.zeros((len(anchor), len(anchor)))
    product = scratch("product", cross.shape)
    total = np.zeros(len(anchor))
    n_rows, weight, log_weight = 0, 0.0, 0.0
    for values, _, weights in slabs(block, anchor):
        n_rows += len(values)
        if weights is None:
            weight += len(values)
            total += sums(np.ones(len(values)), values)
        else:
            weight += float(weights.sum())
            log_weight += float(np.log(weights).sum())
            total += sums(weights, values)
            values *= np.sqrt(weights)[:, None]
        cross += sums(values.T, values, out=product)
    offset = total / weight
    if not usable(anchor, offset, cross.diagonal()):
        raise bad_values(block)
    cross -= np.multiply.outer(weight * offset, offset, out=product)
    return GramMoments(block.told(Head(n_rows, weight, log_weight, anchor, offset)), cross)


def regressor_gram_kernel(block: Block, params: None = None) -> GramMoments | None:
    """`gram_kernel` of the q columns of X alone, over the rows that the fit uses."""
    return gram_kernel(replace(block, y=()), params)


def root_kernel(block: Block, params: None = None) -> RootMoments | None:
    """RootMoments of a block, about 2 n M^2 flops (Householder QR), of fewer rows than columns some 4 n q M."""
    total: RootMoments | None = None
    q, width = width_of(block.x), width_of((*block.x, *block.y))
    # of fewer rows than columns only X is reduced, once for all of them
    for head, centred in _centred_slabs(block, block.n_rows if block.n_rows <= width else slab_rows(width)):
        part = RootMoments(head, reduced(centred, q), q)
        total = part if total is None else total + part
    if total is not None and not usable(total.head.anchor, total.head.offset, np.abs(total.root).max(axis=0) ** 2):
        raise bad_values(block)
    return total if total is None else replace(total, head=block.told(total.head))


def regressor_rows_kernel(block: Block, params: None = None) -> StackedRows | None:
    """The same rows as they are, less their mean and times the root of their weights."""
    for head, centred in _centred_slabs(replace(block, y=()), block.n_rows):  # one, where any row has weight
        if not usable(head.anchor, head.offset, np.abs(centred).max(axis=0) ** 2):
            raise bad_values(block)
        return StackedRows(block.told(head), (_apart(centred),))
    return None


def _apart(values: np.ndarray) -> np.ndarray:
    """A copy whose memory goes back to the system once it is let go: an allocator keeps what others lie behind.

    Small ones are left to it, as a process has so many mappings and no more.
    """
    if values.nbytes < MAPPED:
        return values.copy()
    copy: np.ndarray = np.ndarray(values.shape, buffer=mmap(-1, values.nbytes))
    copy[:] = values
    return copy


def usable(anchor: np.ndarray, offset: np.ndarray, squares: np.ndarray) -> bool:
    """Whether means and sums of squares show that no value was NaN, infinite, or too large to be squared."""
    return bool((np.abs(anchor + offset) < LARGEST).all() and np.isfinite(squares).all())


@dataclass(frozen=True, eq=False)
class CompleteRows:
    """A kernel over the rows of a block whose cells are all observed with their regressors; others get weight zero.

    used : (q,) whether any equation uses the column.
    """

    kernel: Callable[[Block, Any], Any]
    used: np.ndarray

    def __call__(self, block: Block, params: Any) -> Any:
        missing = np.zeros(block.n_rows, dtype=bool)
        for arrays, counted in ((block.x, self.used), (block.y, np.ones(width_of(block.y), dtype=bool))):
            first = 0
            for array in arrays:
                last = first + width_of((array,))
                if np.issubdtype(array.dtype, np.floating):
                    values = as_columns(array)
                    rows = np.flatnonzero(np.isnan(values.sum(axis=1)))  # of a NaN, or of infinities of both signs
                    missing[rows] |= (np.isnan(values[rows]) & counted[first:last]).any(axis=1)
                first = last
        if not missing.any():
            return self.kernel(block, params)
        weights = np.ones(block.n_rows) if block.weights is None else np.asarray(block.weights, dtype=np.float64)
        # a weight that is no weight is left for the kernel to name
        return self.kernel(replace(block, weights=np.where(missing & (weights > 0), 0.0, weights)), params)


# ---------------------------------------------------------------------------------------------- slabs


_kept = threading.local()


def scratch(use: str, shape: tuple[int, int]) -> np.ndarray:
    """Uninitialised memory of this thread for one use at a time, kept for the next block where it is small.

    Workers give freed memory back to the system at once, and fresh pages for every block cost a fifth of its time.
    """
    size = shape[0] * shape[1]
    memory: np.ndarray | None = getattr(_kept, use, None)
    if memory is None or memory.size < size:
        memory = np.empty(size)
        if memory.nbytes <= LARGEST_KEPT:
            setattr(_kept, use, memory)
    return memory[:size].reshape(shape)


def slab_rows(width: int) -> int:
    """Rows of a slab of so many columns: few enough for the cache, and about as many as columns where that is not too
    much, so that the sums updated after every slab cost little beside the products."""
    return max(SLAB_ROWS, SLAB_BYTES // (8 * width), min(width, 8 * SLAB_BYTES // (8 * width)))


def slabs(
    block: Block, anchor: np.ndarray | None = None, height: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Rows of positive weight of [X Y] less an anchor (their first row if None), that anchor, and their weights.

    height : rows of a slab at most, `slab_rows` if None.
    values : (n, q + K) float64, valid until the next slab is asked for: one buffer serves them all.
    """
    arrays = (*block.x, *block.y)
    width = width_of(arrays)
    height = even_rows(block.n_rows, height or slab_rows(width))
    buffer = scratch("slab", (height, width))
    for rows, base, keep, weights in stretches(block, height):
        less = row_of(arrays, base) if anchor is None else anchor
        values = buffer[: rows.stop - rows.start]
        fill(values, arrays, rows.start, rows.stop, less)
        yield values[keep], less, weights


def even_rows(n_rows: int, most: int) -> int:
    """Rows of each of as few stretches as may be, at most so many, all of about the same length."""
    return -(-n_rows // max(1, -(-n_rows // most)))


def stretches(block: Block, height: int) -> Iterator[tuple[slice, int, slice | np.ndarray, np.ndarray | None]]:
    """Stretches of a block of so many rows each, those that have rows of positive weight.

    rows : of the block.  base : the first of positive weight.  keep : which of the stretch have any.  weights : (n,) of
    these, or None.
    """
    for first in range(0, block.n_rows, height):
        rows = slice(first, min(first + height, block.n_rows))
        weights = checked_weights(block, rows.start, rows.stop)
        keep: slice | np.ndarray = slice(None)
        base = first
        if weights is not None:
            used = np.flatnonzero(weights)
            if len(used) == 0:
                continue
            base = first + int(used[0])
            if len(used) < len(weights):
                weights, keep = weights[used], used
        yield rows, base, keep, weights


def checked_weights(block: Block, first: int = 0, last: int | None = None) -> np.ndarray | None:
    """Weights of rows first..last, float64, or None where rows have none; BadValues for one negative or not finite."""
    if block.weights is None:
        return None
    weights = block.weights[first:last].astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise bad_values(block)
    return weights


def _first_mean(block: Block) -> np.ndarray | None:
    """The mean of some first rows of positive weight, (q + K,), exact where a column is constant."""
    if block.weights is None:
        rows = [np.asarray(a[:ANCHOR_ROWS], dtype=np.float64).reshape(-1, width_of((a,))) for a in (*block.x, *block.y)]
        head = np.concatenate(rows, axis=1)
        return head[0] + (head - head[0]).mean(axis=0)
    for values, anchor, _ in slabs(block):
        return anchor + values[:ANCHOR_ROWS].mean(axis=0)
    return None


def row_of(arrays: tuple[np.ndarray, ...], row: int) -> np.ndarray:
    """One row of all columns, float64."""
    return np.concatenate([np.atleast_1d(array[row]) for array in arrays]).astype(np.float64)


def fill(values: np.ndarray, arrays: tuple[np.ndarray, ...], first: int, last: int, less: np.ndarray) -> None:
    """Rows first..last of all arrays side by side, less one number a column; promotes as it goes."""
    column = 0
    for array in arrays:
        stop = column + (1 if array.ndim == 1 else array.shape[1])
        rows = array[first:last] if array.ndim == 2 else array[first:last, None]
        np.subtract(rows, less[column:stop], out=values[:, column:stop], dtype=np.float64, casting="same_kind")
        column = stop


def _centred_slabs(block: Block, height: int) -> Iterator[tuple[Head, np.ndarray]]:
    """Each slab's head, and its rows less the mean, times the square root of their weights."""
    for values, anchor, weights in slabs(block, height=height):
        if weights is None:
            head = Head(len(values), float(len(values)), 0.0, anchor, values.mean(axis=0))
            values -= head.offset
        else:
            total = float(weights.sum())
            offset = sums(weights, values) / total
            head = Head(len(values), total, float(np.log(weights).sum()), anchor, offset)
            values -= offset
            values *= np.sqrt(weights)[:, None]
        if not np.isfinite(head.offset).all():
            raise bad_values(block)
        yield head, values


def forward(
    x: np.ndarray, coefficients: tuple[np.ndarray, ...], groups: tuple[DesignGroup, ...], n_equations: int
) -> np.ndarray:
    """[X_1 b_1 ... X_K b_K], (n, K)."""
    fitted = np.empty((len(x), n_equations))
    for group, b in zip(groups, coefficients, strict=True):
        fitted[:, group.take_equations] = x[:, group.take_columns] @ b
    return fitted
