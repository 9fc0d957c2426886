"""The information matrix of all coefficients as an operator: for systems whose P x P matrix has no room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.design.design import Design
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.cg import conjugate_gradients

__all__ = ["InformationOperator"]

REL_ENERGY = 1e-26  # of the start: thirteen digits of the solution in the norm of the matrix
MAX_ITERATIONS = 2000


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

    def product(self, c: np.ndarray, _: np.ndarray | None = None) -> np.ndarray:
        """(P,) to (P,); r (2 P + K k) multiplications."""
        fitted = np.empty((self.buckets[0][0].shape[1], self.sigma.n_equations))
        for q, equations, places in self.buckets:
            fitted[:, equations] = np.moveaxis(q @ c[places], 1, 0).reshape(len(fitted), -1)
        solved = self.sigma.solve_rows(fitted)
        out = self.ridge * c
        for q, equations, places in self.buckets:
            n_groups, _, n_each = places.shape
            back = np.moveaxis(solved[:, equations].reshape(len(solved), n_groups, n_each), 0, 1)
            out[places] += np.swapaxes(q, 1, 2) @ back
        return out

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """(P, m) to (P, m), a column at a time by conjugate gradients.

        Raises LinAlgError where 2,000 iterations do not reach thirteen digits.
        """
        out = np.empty_like(rhs)
        for i, b in enumerate(rhs.T):
            energy = float(b @ (b / self.preconditioner))
            found = conjugate_gradients(
                self.product,
                np.zeros_like(b),
                b,
                self.preconditioner,
                tol=REL_ENERGY * energy,
                max_iterations=MAX_ITERATIONS,
            )
            if found.energy > REL_ENERGY * energy:
                raise np.linalg.LinAlgError(
                    f"the covariance of these coefficients did not converge in {MAX_ITERATIONS:,} iterations. "
                    "Errors this strongly correlated, or regressors this collinear across equations, need fewer "
                    "equations in one fit."
                )
            out[:, i] = found.x
        return out
