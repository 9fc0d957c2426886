"""Covariance of the coefficients, from the rows that stand for X'X: no read of the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge, column_penalties, penalises
from lrgls_dask.design.restrictions import Restrictions, without_variance
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.constraint import estimator_covariance, free_directions
from lrgls_dask.solve.orthonormal import orthonormal

__all__ = ["CoefficientCovariance"]


@dataclass(frozen=True, eq=False)
class CoefficientCovariance:
    """Classical covariance (X' Sigma^-1 X)^-1 of all P coefficients at a known Sigma, in the user's units.

    x_rows : (r, q) with x_rows'x_rows = X'X.  y_scale : (K,) the units in which lam_B penalises.
    With lam_B > 0 the sandwich A^-1 (X' Sigma^-1 X) A^-1 of the ridge estimator, A = X' Sigma^-1 X + penalty.
    Under restrictions R b = r, G (X' Sigma^-1 X) G with G = A^-1 - A^-1 R' (R A^-1 R')^-1 R A^-1.
    """

    design: Design
    x_rows: np.ndarray
    sigma: Sigma
    n_obs: int
    y_scale: np.ndarray
    lam_B: Ridge
    restrictions: Restrictions | None = None

    @cached_property
    def full(self) -> np.ndarray:
        """(P, P), equation by equation. O(P^3) time, three P x P arrays; Sigma kron (X'X)^-1 where all X_j agree.

        Raises ValueError above MAX_COEFFICIENTS coefficients.
        """
        n_coefficients = self.design.n_coefficients
        if n_coefficients > MAX_COEFFICIENTS:
            raise ValueError(
                f"the covariance of all {n_coefficients} coefficients would take "
                f"{8e-9 * n_coefficients**2:.1f} GB and is limited to {MAX_COEFFICIENTS}. "
                "Ask for one equation at a time, cov(equation=...), or fit fewer equations; "
                "std_errors of all need equations that share their columns."
            )
        if self.has_shared_columns:
            return np.kron(self.sigma.dense(), self._shared_inverse)
        return self._inverse()

    @cached_property
    def variances(self) -> np.ndarray:
        """(P,) diagonal of `full`, formed without it where all equations share their columns."""
        if self.has_shared_columns:
            return np.outer(self.sigma.variances, self._shared_inverse.diagonal()).ravel()
        return np.maximum(self.full.diagonal(), 0.0)  # rounding, of a coefficient that is nearly held

    def at(self, sigma: Sigma) -> CoefficientCovariance:
        """The same at another Sigma."""
        return replace(self, sigma=sigma)

    def block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of one equation's coefficients."""
        if self.has_shared_columns:
            return np.asarray(self.sigma.variances[equation] * self._shared_inverse)
        mine = self.design.spans[equation]
        return self.full[mine, mine]

    def of_combinations(self, matrix: np.ndarray) -> np.ndarray:
        """(m, m) R V R' of combinations R (m, P) of the coefficients, `full` not formed where columns are shared."""
        if self.has_shared_columns:
            by_equation = matrix.reshape(len(matrix), self.design.n_equations, -1)
            along = (by_equation @ self._shared_inverse).transpose(1, 0, 2)
            image = self.sigma.matmul(along.reshape(len(along), -1)).reshape(along.shape)
            found: np.ndarray = np.einsum("ajp,jbp->ab", by_equation, image)
            return found
        used = np.flatnonzero(np.any(matrix != 0, axis=0))
        part: np.ndarray = matrix[:, used] @ self.full[np.ix_(used, used)] @ matrix[:, used].T
        return part

    @property
    def has_shared_columns(self) -> bool:
        """Whether the covariance is Sigma kron (X'X)^-1, which needs no P x P array."""
        return len(self.design.groups) == 1 and not penalises(self.lam_B) and self.restrictions is None

    @property
    def has_blocks_alone(self) -> bool:
        """Whether the block of one equation needs no P x P array."""
        return self.has_shared_columns

    @cached_property
    def _shared_inverse(self) -> np.ndarray:
        columns = self.design.groups[0].columns
        _, half, _ = orthonormal(self.x_rows[:, columns], self.n_obs, np.zeros(len(columns)))
        inverse: np.ndarray = half @ half.T
        return inverse

    def _inverse(self) -> np.ndarray:
        design, penalties = self.design, column_penalties(self.design, self.lam_B)
        rows = np.empty((len(self.x_rows), design.n_coefficients))
        penalty = np.zeros(design.n_coefficients)
        halves: list[np.ndarray] = [np.empty(0)] * design.n_equations
        for group in design.groups:
            q, half, ridge = orthonormal(self.x_rows[:, group.columns], self.n_obs, penalties[group.columns])
            for j, places in zip(group.equations, group.coefficients.T, strict=True):
                rows[:, places], penalty[places] = q, ridge
                halves[j] = half * self.y_scale[j]
        covariance = self._orthonormal_covariance(rows.T @ rows, penalty, self._free(halves))
        for mine, half in zip(design.spans, halves, strict=True):
            covariance[mine] = half @ covariance[mine]
        for mine, half in zip(design.spans, halves, strict=True):
            covariance[:, mine] = covariance[:, mine] @ half.T
        return without_variance(0.5 * (covariance + covariance.T), self.restrictions)

    def _orthonormal_covariance(self, gram: np.ndarray, penalty: np.ndarray, free: np.ndarray | None) -> np.ndarray:
        """(P, P) of coefficients of orthonormal columns in standard units; spends `gram`, their products."""
        precision = self.sigma.rescaled(1.0 / self.y_scale).precision()
        gram *= precision[np.ix_(self.design.equation_of, self.design.equation_of)]
        return estimator_covariance(gram, penalty, free)

    def _free(self, halves: list[np.ndarray]) -> np.ndarray | None:
        """(P, P - m) what restrictions leave free in orthonormal coordinates, b_j = halves_j c_j."""
        if self.restrictions is None:
            return None
        turned = [
            self.restrictions.matrix[:, mine] @ half for mine, half in zip(self.design.spans, halves, strict=True)
        ]
        return free_directions(np.hstack(turned))
