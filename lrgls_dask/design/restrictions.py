"""Linear restrictions on the coefficients, R b = r."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["DEPENDENT", "Restrictions", "in_even_units", "without_variance"]

DEPENDENT = 1e-11  # what is left of a row of length 1 that follows from others: rounding
NEAR = 1e-6  # squared: unit vectors so near to the span of some rows are looked at with care


@dataclass(frozen=True, eq=False)
class Restrictions:
    """m linear equations in the P coefficients, equation by equation, in the user's units.

    matrix : (m, P) R, of full row rank.  values : (m,) r.  texts : how each was written, for messages and tables.
    """

    matrix: np.ndarray
    values: np.ndarray
    texts: tuple[str, ...]

    @property
    def n_restrictions(self) -> int:
        """m."""
        return len(self.values)

    @cached_property
    def held(self) -> np.ndarray:
        """(P,) whether the restrictions alone say what a coefficient is: a unit vector that their rows span.

        O(P m^2) where they share coefficients.
        """
        used = np.flatnonzero(np.any(self.matrix != 0, axis=0))
        rows = in_even_units(self.matrix[:, used])
        held = np.zeros(self.matrix.shape[1], dtype=bool)
        if np.all(np.count_nonzero(rows, axis=0) == 1):  # no coefficient occurs twice
            alone = np.count_nonzero(rows, axis=1) == 1
            held[used] = np.any(rows[alone] != 0, axis=0)
            return held
        basis = np.linalg.qr(rows.T)[0]
        near = np.flatnonzero(np.sum(basis**2, axis=1) > 1.0 - NEAR)
        left = -basis[near] @ basis.T
        left[np.arange(len(near)), near] += 1.0
        held[used[near]] = np.linalg.norm(left, axis=1) < DEPENDENT
        return held


def in_even_units(rows: np.ndarray) -> np.ndarray:
    """Rows (m, P) of unit length, of coefficients in units in which each occurs with 1 at most: no dependence of rows
    shows or hides by the units of the data."""
    size = np.max(np.abs(rows), axis=0)
    even = rows / np.where(size > 0, size, 1.0)
    out: np.ndarray = even / np.linalg.norm(even, axis=1)[:, None]
    return out


def without_variance(
    covariance: np.ndarray, restrictions: Restrictions | None, chosen: slice = slice(None)
) -> np.ndarray:
    """The covariance of the `chosen` coefficients with zeros, not rounding, for those that restrictions hold."""
    if restrictions is None or not restrictions.held[chosen].any():
        return covariance
    free = ~restrictions.held[chosen]
    return np.where(np.multiply.outer(free, free), covariance, 0.0)
