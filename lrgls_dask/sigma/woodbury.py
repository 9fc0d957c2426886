"""Sigma = F F' + Psi: one factorisation, then products, solves and determinants without a K x K array.

With Psi = L L', G = L^-1 F and C = I + G'G = R'R (R upper triangular), Woodbury (1950) reads

    Sigma^-1 = Psi^-1 - H H',   H = Psi^-1 F R^-1   (K, k),        log|Sigma| = log|Psi| + 2 sum log R_mm.

R comes from a QR factorisation of [I; G], which squares no condition number: at d near the floor G'G holds 1/floor.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.sigma.algebra import FactorsAndOwn, column_signs
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.interface import Array

__all__ = ["Woodbury"]


class Woodbury(FactorsAndOwn):
    """Covariance F F' + Psi of K equations with k factors of all equations, factored at first use.

    A kind of it gives F (K, k) and Psi, its `own` part.  Memory O(K k) and that of Psi.
    """

    F: Array

    def loadings(self) -> Array:
        """F, (K, k)."""
        return self.F

    @property
    def n_equations(self) -> int:
        """K."""
        return int(self.F.shape[0])

    @property
    def rank(self) -> int:
        """k."""
        return int(self.F.shape[1])

    def pattern(self) -> Blocks:
        """Every loading."""
        return Blocks.single(self.n_equations, self.rank)

    @cached_property
    def factor_variances(self) -> Array:
        """The diagonal of F F', (K,)."""
        return np.einsum("ik,ik->i", self.F, self.F)

    @cached_property
    def scaled_loadings(self) -> Array:
        """Psi^-1 F, (K, k)."""
        return self.own.solve(self.F)

    @cached_property
    def capacitance_cholesky(self) -> Array:
        """R, (k, k) upper triangular with positive diagonal and R'R = I + F' Psi^-1 F.  O(K k^2)."""
        stacked = np.vstack([np.eye(self.rank), self.own.whitened(self.F)])
        R = np.linalg.qr(stacked, mode="r")
        return np.asarray(R * np.where(np.diagonal(R) < 0.0, -1.0, 1.0)[:, None])

    @cached_property
    def _half(self) -> Array:
        """H = Psi^-1 F R^-1, (K, k), with Sigma^-1 = Psi^-1 - H H'."""
        return np.ascontiguousarray(solve_triangular(self.capacitance_cholesky, self.scaled_loadings.T, trans="T").T)

    @cached_property
    def precision_loadings(self) -> Array:
        """Sigma^-1 F = Psi^-1 F C^-1, (K, k).  O(K k^2)."""
        return self._refined(self.F.T, solve_triangular(self.capacitance_cholesky, self._half.T)).T

    @property
    def _halves(self) -> tuple[Array, ...]:
        return (self._half,)

    def _rows_matmul(self, E: Array) -> Array:
        out = self.own.rows_matmul(E)
        out += (E @ self.F) @ self.F.T
        return out

    def _solve_rows_once(self, E: Array) -> Array:
        out = self.own.solve_rows(E)
        out -= (E @ self._half) @ self._half.T
        return out

    @cached_property
    def logdet(self) -> float:
        """log|Sigma| = log|Psi| + log|C|."""
        return float(self.own.logdet + 2.0 * np.log(np.diagonal(self.capacitance_cholesky)).sum())

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        out = self.F @ self.F.T
        self.own.add_to(out)
        return out

    def _rotated(self) -> Array:
        """F turned to make F' Psi^-1 F diagonal and descending, the largest entry of each column positive.  O(K k^2).

        Of several that tie for largest the first.  Unique when the diagonal of F' Psi^-1 F has no ties.
        Source: Lawley & Maxwell (1971), 2.3.
        """
        rotation = np.linalg.svd(self.own.whitened(self.F), full_matrices=False)[2].T
        F = self.F @ rotation
        return np.asarray(F * column_signs(F))
