"""Products that sum over many rows into few numbers, without keeping other threads waiting.

`np.matmul` lets other threads run where its result has more than 500 numbers, however long the sums are that it takes;
so two threads that each reduce a slab of rows to a short gradient by it take turns. `np.dot` always lets them, SciPy's
wrappers of BLAS never do.
"""

from __future__ import annotations

import numpy as np

__all__ = ["batched_sums", "sums"]

HELD = 500  # numbers of a result, up to which np.matmul keeps others waiting
SHORT = 2**15  # multiplications that take no longer than it takes to wake a thread


def sums(left: np.ndarray, right: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """left (a, n) or (n,) times right (n, b); SYRK where both are one array.  out : where they go, if given."""
    return np.asarray(np.dot(left, right, out=out))


def batched_sums(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left (g, a, n) times right (g, n, b), (g, a, b)."""
    (g, a, n), b = left.shape, right.shape[2]
    pieces = HELD // (g * a * b) + 1
    height = n // pieces
    if pieces == 1 or height == 0 or n * g * a * b <= SHORT:
        return np.asarray(left @ right)
    whole = pieces * height
    of_left = left[:, :, :whole].reshape(g, a, pieces, height).transpose(2, 0, 1, 3)
    of_right = right[:, :whole].reshape(g, pieces, height, b).transpose(1, 0, 2, 3)
    found = (of_left @ of_right).sum(axis=0)
    if whole < n:
        found += left[:, :, whole:] @ right[:, whole:]
    return np.asarray(found)
