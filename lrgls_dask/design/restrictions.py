"""Linear restrictions on the coefficients, R b = r."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from lrgls_dask.design.design import Design

__all__ = ["DEPENDENT", "Restrictions", "free_coefficients", "in_even_units", "without_variance"]

DEPENDENT = 1e-11  # what is left of a row of length 1 that follows from others: rounding
MAX_ENTRIES = 20_000**2  # of R (m, P), as many as a covariance of the coefficients may have
NEAR = 1e-6  # squared: unit vectors so near to the span of some rows are looked at with care
UNLIKE = 1e3  # times the largest weight of a coefficient, or a part of it so small: another weight is of other units


@dataclass(frozen=True, eq=False)
class Restrictions:
    """m linear equations in the P coefficients, equation by equation, in the user's units.

    rows : (m, P) R, of full row rank; kept sparse.  values : (m,) r.  texts : how each was written, for messages and
    tables.
    """

    rows: Any
    values: np.ndarray
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", sp.csr_array(self.rows))

    @cached_property
    def matrix(self) -> np.ndarray:
        """(m, P) R, dense.  Raises ValueError where that is more than a covariance of coefficients may take."""
        m, P = self.rows.shape
        if m * P > MAX_ENTRIES:
            raise ValueError(
                f"{m} restrictions on {P} coefficients would take {8e-9 * m * P:.1f} GB and are limited to "
                f"{8e-9 * MAX_ENTRIES:.1f} GB. Restrict fewer at a time."
            )
        return np.asarray(self.rows.toarray())

    @property
    def about(self) -> np.ndarray:
        """Ascending positions of the coefficients that occur."""
        return np.unique(self.rows.indices)

    @property
    def n_restrictions(self) -> int:
        """m."""
        return len(self.values)

    @cached_property
    def held(self) -> np.ndarray:
        """(P,) whether the restrictions alone say what a coefficient is: a unit vector that their rows span.

        O(P m^2) where they share coefficients.
        """
        rows, used = in_even_units(self.matrix), np.flatnonzero(np.any(self.matrix != 0, axis=0))
        rows, held = rows[:, used], np.zeros(self.matrix.shape[1], dtype=bool)
        if np.all(np.count_nonzero(rows, axis=0) == 1):  # no coefficient occurs twice
            alone = np.count_nonzero(rows, axis=1) == 1
            held[used] = np.any(rows[alone] != 0, axis=0)
            return held
        basis = self._basis[used]
        near = np.flatnonzero(np.sum(basis**2, axis=1) > 1.0 - NEAR)
        left = -basis[near] @ basis.T
        left[np.arange(len(near)), near] += 1.0
        held[used[near]] = np.linalg.norm(left, axis=1) < DEPENDENT
        return held

    def in_coordinates(self, spans: Sequence[slice], to_user: Sequence[np.ndarray]) -> np.ndarray:
        """(m, P) R in coordinates c of each equation, b_j = to_user_j c_j.  spans : of its coefficients."""
        return np.hstack([self.matrix[:, mine] @ turn for mine, turn in zip(spans, to_user, strict=True)])

    def open_to(self, chosen: slice) -> np.ndarray:
        """(p, d) the directions in which the `chosen` coefficients may move, whatever the others do to allow it."""
        basis, free = self._basis[chosen], np.flatnonzero(~self.held[chosen])
        size = self._size[chosen][free]
        values, vectors = np.linalg.eigh(np.eye(len(free)) - basis[free] @ basis[free].T)
        if np.all(values > NEAR**2):  # each by itself: nothing is mixed that rounding could bring in
            vectors = np.eye(len(free))
        out = np.zeros((len(basis), int(np.sum(values > NEAR**2))))
        out[free] = vectors[:, values > NEAR**2] / np.where(size > 0, size, 1.0)[:, None]
        return out

    def surely_open(self, rows: sp.csr_array, edges: np.ndarray) -> np.ndarray:
        """(E,) whether some further restrictions, those from edges[e] to edges[e + 1] of `rows` (n, P), are so far from
        the span of these and of each other that no look at rounding is needed: O(n m) a coefficient of theirs."""
        scaled = sp.csr_array(rows @ sp.diags_array(1.0 / np.where(self._size > 0, self._size, 1.0)))
        at, entries = np.repeat(np.arange(rows.shape[0]), np.diff(scaled.indptr)), np.abs(scaled.data)
        odd = np.zeros(rows.shape[0], dtype=bool)  # of weights so unlike that the units of these rows are not theirs
        odd[at[(self._size[scaled.indices] > 0) & ((entries > UNLIKE) | (entries < 1.0 / UNLIKE))]] = True
        unit = sp.csr_array(sp.diags_array(1.0 / np.sqrt(np.bincount(at, entries**2))) @ scaled)
        along = unit @ self._basis
        out = 1.0 - np.sum(along[edges[:-1]] ** 2, axis=1) > NEAR  # of those that are one
        for e in np.flatnonzero(np.diff(edges) > 1).tolist():
            mine, part = unit[edges[e] : edges[e + 1]], along[edges[e] : edges[e + 1]]
            out[e] = np.linalg.eigvalsh((mine @ mine.T).toarray() - part @ part.T)[0] > NEAR
        return out & (np.add.reduceat(odd, edges[:-1]) == 0)

    @cached_property
    def _size(self) -> np.ndarray:
        """(P,) the largest weight of each coefficient."""
        return np.max(np.abs(self.matrix), axis=0)

    @cached_property
    def _basis(self) -> np.ndarray:
        """(P, m) orthonormal basis of the rows, in even units; rows that share no coefficients are looked at apart."""
        rows = in_even_units(self.matrix)
        meets = sp.csr_array(rows != 0).astype(np.int64)
        _, part = connected_components(meets @ meets.T, directed=False)
        basis, order = np.zeros(rows.shape[::-1]), np.argsort(part, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            used = np.flatnonzero(np.any(rows[mine] != 0, axis=0))
            basis[np.ix_(used, mine)] = np.linalg.qr(rows[np.ix_(mine, used)].T)[0]
        return basis


def free_coefficients(design: Design, restrictions: Restrictions | None) -> np.ndarray:
    """(K,) how many coefficients of each equation are free, the p_j of its degrees of freedom; absorbed effects count.

    All, less the restrictions that are about this equation alone, in whatever way they are written: as if their columns
    had been dropped. A restriction across equations takes a freedom from the system but none from an equation, each of
    which can still move in all its directions if the others move along; so systemfit counts.
    """
    if restrictions is None:
        return design.sizes + design.n_absorbed
    touched = np.any(restrictions.matrix != 0, axis=0)
    free = [
        restrictions.open_to(mine).shape[1] if touched[mine].any() else mine.stop - mine.start for mine in design.spans
    ]
    return np.array(free) + design.n_absorbed


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
