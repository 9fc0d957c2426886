"""Linear constraints on coefficients: the preconditioner that keeps to them, and inverses on what they leave free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

__all__ = ["Constraint", "Preconditioner", "estimator_covariance", "free_directions", "inverse_within"]


@dataclass(frozen=True, eq=False)
class Constraint:
    """rows c = values: rows (m, P) of full row rank, values (m,)."""

    rows: np.ndarray
    values: np.ndarray

    @cached_property
    def free(self) -> np.ndarray:
        """(P, P - m) orthonormal basis of the directions in which c may move; O(P^3) time, P^2 numbers."""
        return free_directions(self.rows)

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
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                weighed = (rows / self.diagonal) @ rows.T
            factor, lower = cho_factor(weighed, lower=True)
        except (LinAlgError, ValueError):  # what is not finite is no number of LAPACK's
            raise LinAlgError(
                "restrictions hold coefficients so far from what the data say that nothing of an equation's own errors "
                "is left to weight them by. Check their right-hand sides, and the units of the responses."
            ) from None
        return factor, lower


def free_directions(rows: np.ndarray) -> np.ndarray:
    """(P, P - m) orthonormal basis of the changes that leave rows (m, P), of full row rank, where they are."""
    basis: np.ndarray = np.linalg.qr(rows.T, mode="complete")[0][:, len(rows) :]
    return basis


def inverse_within(matrix: np.ndarray, free: np.ndarray | None = None) -> np.ndarray:
    """Z (Z' A Z)^-1 Z', (P, P): the inverse of A (P, P) on the directions Z (P, P - m), on all of them if None.

    With R Z = 0 it is A^-1 - A^-1 R' (R A^-1 R')^-1 R A^-1, not as a difference of nearly equal matrices.
    Three P x P arrays, five with directions.  Raises LinAlgError when A is not positive definite there.
    """
    if free is None:
        identity = np.eye(len(matrix), order="F")  # which LAPACK can overwrite
        return np.asarray(cho_solve(cho_factor(matrix, lower=True), identity, overwrite_b=True))
    root = np.linalg.cholesky(free.T @ matrix @ free)
    half = solve_triangular(root, free.T, lower=True).T
    return np.asarray(half @ half.T)


def estimator_covariance(information: np.ndarray, ridge: np.ndarray, free: np.ndarray | None = None) -> np.ndarray:
    """(P, P) G I G, G the inverse of A = I + diag(ridge) on the directions `free`: of a ridge estimate of coefficients.

    information : (P, P) I.  ridge : (P,) 0 or more, all zero for G itself.  Costs and errors of `inverse_within`.
    """
    if not ridge.any():
        return inverse_within(information, free)
    inverse = inverse_within(information + np.diag(ridge), free)
    return np.asarray(inverse @ information @ inverse)
