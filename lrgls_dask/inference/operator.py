"""The information matrix of all coefficients as an operator: for systems whose P x P matrix has no room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.inference.by_solving import conjugate_gradients_of_many, unit_columns
from lrgls_dask.sigma.interface import Sigma

__all__ = ["InformationOperator"]

AT_ONCE = 256 * 2**20  # bytes of fitted values
ITERATIONS = 20  # that are priced: some ten where factors tie the equations, more where much of the variance is theirs


@dataclass(frozen=True, eq=False)
class InformationOperator:
    """c -> Q'((Q c) Sigma^-1) + ridge c, for equations with orthonormal regressors Q_j (r, p_j).

    buckets : equations of equal shape together: Q (G, r, p) of their designs, their equations (G m,), and the
    positions (G, p, m) of their coefficients.  sigma : of the equations.  ridge : (P,).
    """

    buckets: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    sigma: Sigma
    ridge: np.ndarray
    preconditioner: np.ndarray

    @classmethod
    def of(cls, design: Design, pieces: tuple[np.ndarray, ...], sigma: Sigma, ridge: np.ndarray) -> InformationOperator:
        """pieces : Q of every design group.  Memory r numbers for each column of each distinct design."""
        buckets = []
        for members in design.buckets:
            groups = [design.groups[i] for i in members]
            places = np.stack([group.coefficients for group in groups])
            equations = np.stack([group.equations for group in groups]).ravel()
            buckets.append((np.stack([pieces[i] for i in members]), equations, places))
        precisions = np.repeat(sigma.precision_diagonal, design.sizes)
        return cls(tuple(buckets), sigma, ridge, precisions * (1.0 - ridge) + ridge)

    def product(self, c: np.ndarray) -> np.ndarray:
        """(P, m) to (P, m); r m (2 P + K k) multiplications, a few columns at a time."""
        rows = self.buckets[0][0].shape[1]
        step = max(1, AT_ONCE // (8 * rows * self.sigma.n_equations))
        parts = [self._product(c[:, begin : begin + step]) for begin in range(0, c.shape[1], step)]
        return np.hstack(parts) + self.ridge[:, None] * c

    def _product(self, c: np.ndarray) -> np.ndarray:
        rows, m = self.buckets[0][0].shape[1], c.shape[1]
        fitted = np.empty((m, rows, self.sigma.n_equations))
        for q, equations, places in self.buckets:
            n_groups, p, n_each = places.shape
            images = q @ c[places].reshape(n_groups, p, -1)
            by_column = images.reshape(n_groups, rows, n_each, m).transpose(3, 1, 0, 2)
            fitted[:, :, equations] = by_column.reshape(m, rows, -1)
        solved = self.sigma.solve_rows(fitted.reshape(m * rows, -1)).reshape(fitted.shape)
        out = np.empty_like(c)
        for q, equations, places in self.buckets:
            n_groups, p, n_each = places.shape
            back = solved[:, :, equations].reshape(m, rows, n_groups, n_each).transpose(2, 1, 3, 0)
            images = np.swapaxes(q, 1, 2) @ back.reshape(n_groups, rows, -1)
            out[places] = images.reshape(n_groups, p, n_each, m)
        return out

    def flops(self, n_columns: int) -> float:
        """What solving for so many right-hand sides costs, about."""
        return 4.0 * ITERATIONS * n_columns * self.buckets[0][0].shape[1] * len(self.ridge)

    def solve(self, rhs: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.solve`; by conjugate gradients.  Raises LinAlgError where they do not arrive."""
        over = 1.0 / self.preconditioner[:, None]
        return conjugate_gradients_of_many(self.product, lambda residual: residual * over, rhs, tol)

    def columns(self, places: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.columns`."""
        return self.solve(unit_columns(len(self.ridge), places), tol)
