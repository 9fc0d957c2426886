"""The information matrix of all coefficients as an operator: for systems whose P x P matrix has no room."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.design.design import Design
from lrgls_dask.inference.by_solving import conjugate_gradients_of_many, unit_columns
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.prices import SOLUTIONS, iterations

__all__ = ["InformationOperator", "half_of"]

AT_ONCE = 256 * 2**20  # bytes of fitted values
THIN = 3.0  # as long as a multiplication of large matrices takes, one of a few regressors
SCORES = 64 * 2**20  # of what these say of the factors
SLAB = 16 * 2**20  # of fitted values that are made and used at once


def half_of(wide: Any) -> np.ndarray:
    """(K, k) H with Sigma^-1 = D^-1 - H H', of a Sigma of factors and variances."""
    return np.asarray(solve_triangular(wide.capacitance_cholesky, wide.scaled_loadings.T, trans="T").T)


@dataclass(frozen=True, eq=False)
class InformationOperator:
    """c -> Q'((Q c) Sigma^-1) + ridge c, for equations with orthonormal regressors Q_j (r, p_j).

    buckets : equations of equal shape together: Q (G, r, p) of their designs, their equations (G m,), and the
    positions (G, p, m) of their coefficients.  sigma : of the equations.  ridge : (P,).
    """

    buckets: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    sigma: Sigma
    ridge: np.ndarray

    @classmethod
    def of(cls, design: Design, pieces: tuple[np.ndarray, ...], sigma: Sigma, ridge: np.ndarray) -> InformationOperator:
        """pieces : Q of every design group.  Memory r numbers for each column of each distinct design."""
        buckets = []
        for members in design.buckets:
            groups = [design.groups[i] for i in members]
            places = np.stack([group.coefficients for group in groups])
            equations = np.stack([group.equations for group in groups]).ravel()
            buckets.append((np.stack([pieces[i] for i in members]), equations, places))
        return cls(tuple(buckets), sigma, ridge)

    def product(self, c: np.ndarray) -> np.ndarray:
        """(P, m) to (P, m); 2 r m (P + K k) multiplications, a few equations or columns at a time."""
        if self.sigma.is_wide:
            step = max(1, SCORES // (8 * self.buckets[0][0].shape[1] * max(1, self._half.shape[1])))
            parts = [self._explained(c[:, begin : begin + step]) for begin in range(0, c.shape[1], step)]
            return np.asarray(self._own[:, None] * c - np.hstack(parts))
        rows = self.buckets[0][0].shape[1]
        step = max(1, AT_ONCE // (8 * rows * self.sigma.n_equations))
        parts = [self._product(c[:, begin : begin + step]) for begin in range(0, c.shape[1], step)]
        return np.hstack(parts) + self.ridge[:, None] * c

    def _explained(self, c: np.ndarray) -> np.ndarray:
        """W'W c, W (r k, P) of Q_j kron H_j', Sigma^-1 = D^-1 - H H'; where arrays lie as they are multiplied."""
        half, m = self._half, c.shape[1]
        rows, k = self.buckets[0][0].shape[1], half.shape[1]
        out, scores = np.empty_like(c), np.zeros((k, rows * m))
        parts = []
        for q, equations, places in self.buckets:
            n_groups, _, n_each = places.shape
            step = max(1, SLAB // (8 * rows * m * n_each))
            of_equations = half[equations].reshape(n_groups, n_each, k)
            for first in range(0, n_groups, step):
                some = slice(first, min(first + step, n_groups))
                parts.append((q[some], of_equations[some].reshape(-1, k), places[some].transpose(0, 2, 1)))
        for q, of_equations, places in parts:  # (g, r, p), (g n, k) and (g, n, p)
            images = q[:, None] @ c[places]
            scores += of_equations.T @ images.reshape(len(of_equations), -1)
        for q, of_equations, places in parts:
            images = (of_equations @ scores).reshape(*places.shape[:2], rows, m)
            out[places] = np.swapaxes(q, 1, 2)[:, None] @ images
        return out

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
        """What solving for so many right-hand sides costs, about, in multiplications of large matrices."""
        of_factors = self._half.size if self.sigma.is_wide else 0
        once = 4.0 * self.buckets[0][0].shape[1] * (len(self.ridge) + of_factors)
        return THIN * iterations(SOLUTIONS) * n_columns * once

    def solve(self, rhs: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.solve`; by conjugate gradients.  Raises LinAlgError where they do not arrive."""
        return conjugate_gradients_of_many(self.product, self.preconditioned, rhs, tol)

    def columns(self, places: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Information.columns`."""
        return self.solve(unit_columns(len(self.ridge), places), tol)

    def preconditioned(self, residual: np.ndarray) -> np.ndarray:
        """(P, m) of each equation by itself, less what the first row, the mean of all, adds to the others: most of what
        equations with an intercept have in common."""
        out = residual / self._own[:, None]
        if not self.sigma.is_wide:
            return np.asarray(out)
        over, inner = self._of_mean
        return np.asarray(out + over @ (inner @ (over.T @ residual)))

    @cached_property
    def _half(self) -> np.ndarray:
        """See `half_of`."""
        return half_of(self.sigma.widened())

    @cached_property
    def _own(self) -> np.ndarray:
        """(P,) of the information of each equation, given the factors where Sigma is made of these."""
        sigma = self.sigma
        precisions = 1.0 / sigma.widened().d if sigma.is_wide else sigma.precision_diagonal
        return np.asarray(self._by_coefficient(precisions) * (1.0 - self.ridge) + self.ridge)

    @cached_property
    def _of_mean(self) -> tuple[np.ndarray, np.ndarray]:
        """See `by_passes.InformationPasses`."""
        half = self._half
        V = np.empty((len(self.ridge), half.shape[1]))
        for q, equations, places in self.buckets:
            of_equations = half[equations].reshape(len(places), -1, half.shape[1])
            V[places] = np.einsum("gp,gmk->gpmk", q[:, 0], of_equations)
        over = V / self._own[:, None]
        return over, np.linalg.inv(np.eye(V.shape[1]) - V.T @ over)

    def _by_coefficient(self, of_equations: np.ndarray) -> np.ndarray:
        """(P,) from (K,)."""
        found = np.empty(len(self.ridge))
        for _, equations, places in self.buckets:
            found[places] = of_equations[equations].reshape(len(places), 1, -1)
        return found
