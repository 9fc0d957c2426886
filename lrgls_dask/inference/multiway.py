"""Covariances that are robust to correlation within groups of several kinds at once, from those of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

__all__ = ["MOST_WAYS", "crossed", "crossed_sum"]

MOST_WAYS = 4  # kinds of groups: with more there are many crossings, and no statistics that asks for them
ROUNDING = 1e-10  # of a negative eigenvalue, relative to the largest


def crossed(n_ways: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Every set of the kinds 0..n_ways-1 and its sign: rows that agree in all kinds of a set are one group of it.

    Sets of one kind come first.  Source: Cameron, Gelbach and Miller (2011), eq. 2.13.
    """
    sets = [each for size in range(1, n_ways + 1) for each in combinations(range(n_ways), size)]
    return tuple((each, 1 if len(each) % 2 else -1) for each in sets)


def crossed_sum(parts: Sequence[np.ndarray], n_ways: int) -> tuple[np.ndarray, str]:
    """The sum of covariances with signs (P, P) in the order of `crossed`, and what is to be said of it, if anything.

    It may have negative eigenvalues, the more so the more coefficients there are beside groups. While every variance is
    positive it is left as it is, so that standard errors are those of each coefficient by itself. Else negative
    eigenvalues are taken for zero: of the matrix in units of the variances by single kinds, so that the units of the
    data change nothing.  Source: Cameron, Gelbach and Miller (2011), section 2.3.
    """
    total = np.sum(parts, axis=0)
    size = np.sqrt(np.maximum(np.sum([part.diagonal() for part in parts[:n_ways]], axis=0), 0.0))
    scale = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(total / np.outer(scale, scale))
    if values[0] >= -ROUNDING * max(values[-1], 1.0):
        return total, ""
    if np.all(total.diagonal() >= -ROUNDING * scale**2):
        return total, "not positive semidefinite"
    mended = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return mended * np.outer(scale, scale), "negative eigenvalues set to zero"
