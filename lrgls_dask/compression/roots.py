"""Triangular roots of cross-products: what a compressed system is made of."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from lrgls_dask.rows.moments import triangle


def root_of(cross: np.ndarray) -> np.ndarray:
    """(r, M) with root'root = cross, (M, M) positive semidefinite, lower triangle given; X first stays X first.

    Holds two more of its size at a time, of nearly dependent columns four.
    """
    scale = np.sqrt(cross.diagonal())
    live = np.flatnonzero(scale > 0)
    scaled = cross[np.ix_(live, live)]
    scaled /= np.outer(scale[live], scale[live])
    factor, info = lapack.dpotrf(scaled, lower=1, clean=1)
    if info == 0:
        del scaled  # of large ones every copy counts, here as below
        factor *= scale[live, None]
        full = np.zeros((len(live), len(scale)))
        full[:, live] = factor.T
        return _keep_x_first(full, live, len(scale))
    del factor
    factor, pivots, rank, _ = lapack.dpstrf(scaled, lower=1)
    del scaled
    part = np.empty((rank, len(live)))
    part[:, pivots - 1] = np.tril(factor)[:, :rank].T
    del factor
    placed = triangle(part) * scale[live] if rank else 0.0
    full = np.zeros((rank, len(scale)))
    full[:, live] = placed
    return full


def _keep_x_first(root: np.ndarray, live: np.ndarray, width: int) -> np.ndarray:
    """Put row i of the root where column live[i] stands, so that rows below the q-th hold no X."""
    if len(live) == width:
        return root
    placed = np.zeros((width, width))
    placed[live] = root
    return placed
