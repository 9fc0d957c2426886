"""About which values the sums of a block are taken where rows show only some equations."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lrgls_dask.rows.block import Block, width_of
from lrgls_dask.rows.kernels import LARGEST

__all__ = ["observed_mean"]

ANCHOR_ROWS = 64  # enough for a mean within a fraction of the spread


def observed_mean(block: Block, observed: np.ndarray, incidence: sp.csr_array) -> np.ndarray:
    """(q + K,) the mean over some first rows that show a column, 0 for anything not finite.

    observed : (n, K) which responses are.
    """
    head = _first_rows(block, slice(0, ANCHOR_ROWS))
    shown = observed[:ANCHOR_ROWS].astype(np.float64)
    usable = np.isfinite(head) & (np.abs(head) < LARGEST)
    usable[:, : -shown.shape[1]] &= (incidence @ shown.T > 0).T
    base = np.where(usable.any(axis=0), head[np.argmax(usable, axis=0), np.arange(head.shape[1])], 0.0)
    less = np.where(usable, head - np.where(usable, base, 0.0), 0.0)
    found = np.asarray(base + less.sum(axis=0) / np.maximum(usable.sum(axis=0), 1))
    if block.n_rows > ANCHOR_ROWS and not usable.any(axis=0).all():
        late = ~usable.any(axis=0)
        found[late] = _first_shown(block, observed, incidence)[late]
    return found


def _first_rows(block: Block, rows: slice) -> np.ndarray:
    """(n, q + K) some rows in float64."""
    arrays = [np.asarray(a[rows], dtype=np.float64).reshape(-1, width_of((a,))) for a in (*block.x, *block.y)]
    return np.concatenate(arrays, axis=1)


def _first_shown(block: Block, observed: np.ndarray, incidence: sp.csr_array) -> np.ndarray:
    """(q + K,) every column in the first row that shows it, 0 where none does or the value cannot be used."""
    n, n_y = block.n_rows, observed.shape[1]
    of_y = np.where(observed.any(axis=0), observed.argmax(axis=0), n)
    of_x = np.full(incidence.shape[0], n)
    used = np.flatnonzero(np.diff(incidence.indptr))
    if len(used):
        of_x[used] = np.minimum.reduceat(of_y[incidence.indices], incidence.indptr[used])
    first, found = np.concatenate([of_x, of_y]), np.zeros(len(of_x) + n_y)
    for row in np.unique(first[first < n]).tolist():
        mine = first == row
        values = _first_rows(block, slice(row, row + 1))[0, mine]
        found[mine] = np.where(np.abs(values) < LARGEST, values, 0.0)
    return found
