"""Linear constraints on the vector the conjugate gradients work on, and the preconditioner that keeps to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve

__all__ = ["Constraint", "Preconditioner"]


@dataclass(frozen=True, eq=False)
class Constraint:
    """rows c = values: rows (m, P) of full row rank, values (m,)."""

    rows: np.ndarray
    values: np.ndarray

    @cached_property
    def free(self) -> np.ndarray:
        """(P, P - m) orthonormal basis of the directions in which c may move; O(P^3) time, P^2 numbers."""
        basis: np.ndarray = np.linalg.qr(self.rows.T, mode="complete")[0]
        return basis[:, len(self.rows) :]

    def nearest(self, c: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
        """The c (P,) that keeps to the constraint and is nearest in the metric sum diagonal * change^2."""
        preconditioner = Preconditioner(diagonal, self)
        for _ in range(2):  # the second time takes out what rounding left
            c = c + preconditioner.lift(self.values - self.rows @ c)
        return c


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """M^-1 for a diagonal M (P,), within the null space of a constraint if there is one.

    Source: Gould, Hribar and Nocedal (2001), sections 3 (projection) and 5 (the residual without its normal part).
    """

    diagonal: np.ndarray
    constraint: Constraint | None = None

    def __call__(self, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residual (P,) less its part along the rows, and z = M^-1 of that.  O(m P)."""
        if self.constraint is None:
            return residual, residual / self.diagonal
        rows = self.constraint.rows
        for _ in range(2):  # the second time takes out what rounding left of a large normal part
            residual = residual - rows.T @ cho_solve(self._normal, rows @ (residual / self.diagonal))
        return residual, residual / self.diagonal

    def lift(self, gap: np.ndarray) -> np.ndarray:
        """The smallest change of c (P,) in the metric M that moves rows c by `gap` (m,)."""
        assert self.constraint is not None
        change: np.ndarray = (self.constraint.rows.T @ cho_solve(self._normal, gap)) / self.diagonal
        return change

    @cached_property
    def _normal(self) -> tuple[np.ndarray, bool]:
        """Cholesky factor of rows M^-1 rows', (m, m)."""
        assert self.constraint is not None
        rows = self.constraint.rows
        factor, lower = cho_factor((rows / self.diagonal) @ rows.T, lower=True)
        return factor, lower
