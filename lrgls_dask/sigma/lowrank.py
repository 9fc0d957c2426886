"""Sigma = F F' + diag(d): one factorisation, then products, solves and determinants without a K x K array.

With G = D^-1/2 F and C = I + G'G = R'R (R upper triangular), Woodbury (1950) reads

    Sigma^-1 = D^-1 - H H',   H = D^-1 F R^-1   (K, k),        log|Sigma| = sum log d + 2 sum log R_mm.

R comes from a QR factorisation of [I; G], which squares no condition number: at d near the floor G'G holds 1/floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import solve_triangular

from lrgls_dask.sigma.algebra import OwnVariances, column_signs
from lrgls_dask.sigma.interface import Array, Stored

__all__ = ["LowRank", "max_rank"]


@dataclass(frozen=True, eq=False)
class LowRank(OwnVariances):
    """Covariance F F' + diag(d) of K equations with k factors, factored at first use.

    F : (K, k) loadings, 0 <= k <= K; k = 0 is the diagonal model.  d : (K,) idiosyncratic variances, > 0.
    Memory O(K k).  Raises ValueError for shapes that do not fit and for d that is not positive and finite.
    """

    F: Array
    d: Array
    saved: ClassVar[tuple[str, ...]] = ("loadings", "idio_var")

    def __post_init__(self) -> None:
        if self.F.ndim != 2 or self.d.shape != self.F.shape[:1] or self.F.shape[1] > self.F.shape[0]:
            raise ValueError(f"LowRank needs F (K, k), k <= K, and d (K,); got F {self.F.shape} and d {self.d.shape}.")
        self._check_rows("F", self.F)

    @property
    def kind(self) -> str:
        return "lowrank" if self.rank else "diagonal"

    @property
    def n_equations(self) -> int:
        """K."""
        return int(self.F.shape[0])

    @property
    def rank(self) -> int:
        """k."""
        return int(self.F.shape[1])

    @property
    def n_parameters(self) -> int:
        """K k + K - k (k - 1) / 2: loadings and variances, less the rotations that leave Sigma alone."""
        K, k = self.F.shape
        return K * k + K - k * (k - 1) // 2

    @cached_property
    def factor_variances(self) -> Array:
        """The diagonal of F F', (K,)."""
        return np.einsum("ik,ik->i", self.F, self.F)

    @cached_property
    def scaled_loadings(self) -> Array:
        """D^-1 F, (K, k)."""
        return self.F / self.d[:, None]

    @cached_property
    def capacitance_cholesky(self) -> Array:
        """R, (k, k) upper triangular with positive diagonal and R'R = I + F' D^-1 F.  O(K k^2)."""
        stacked = np.vstack([np.eye(self.rank), self.F / np.sqrt(self.d)[:, None]])
        R = np.linalg.qr(stacked, mode="r")
        return np.asarray(R * np.where(np.diagonal(R) < 0.0, -1.0, 1.0)[:, None])

    @cached_property
    def _half(self) -> Array:
        """H = D^-1 F R^-1, (K, k), with Sigma^-1 = D^-1 - H H'."""
        return np.ascontiguousarray(solve_triangular(self.capacitance_cholesky, self.scaled_loadings.T, trans="T").T)

    @cached_property
    def precision_loadings(self) -> Array:
        """Sigma^-1 F = D^-1 F C^-1, (K, k).  O(K k^2)."""
        return self._refined(self.F.T, solve_triangular(self.capacitance_cholesky, self._half.T)).T

    @property
    def _halves(self) -> tuple[Array, ...]:
        return (self._half,)

    def _rows_matmul(self, E: Array) -> Array:
        out = np.asarray(E * self.d)
        out += (E @ self.F) @ self.F.T
        return out

    def _solve_rows_once(self, E: Array) -> Array:
        out = np.asarray(E / self.d)
        out -= (E @ self._half) @ self._half.T
        return out

    @cached_property
    def logdet(self) -> float:
        """log|Sigma| = sum log d + log|C|."""
        return float(np.log(self.d).sum() + 2.0 * np.log(np.diagonal(self.capacitance_cholesky)).sum())

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        out = self.F @ self.F.T
        out[np.diag_indices_from(out)] += self.d
        return out

    def rescaled(self, scale: Array) -> Self:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return replace(self, F=self.F * scale[:, None], d=self.d * scale**2)

    def normalised(self) -> LowRank:
        """The same Sigma, loadings rotated to the stated normalisation.  O(K k^2).

        F' D^-1 F is diagonal and descending; the entry of largest magnitude in each column of F is positive (of several
        that tie, the first).  Unique when the diagonal of F' D^-1 F has no ties.  Source: Lawley & Maxwell (1971), 2.3.
        """
        rotation = np.linalg.svd(self.F / np.sqrt(self.d)[:, None], full_matrices=False)[2].T
        F = self.F @ rotation
        return LowRank(F=F * column_signs(F), d=self.d)

    def stored(self) -> Stored:
        return {"loadings": (self.F, ("equation", "factor")), "idio_var": (self.d, ("equation",))}


def max_rank(K: int) -> int:
    """The largest k with (K - k)^2 >= K + k (Ledermann 1937): more factors than that are not identified.

    The roots of (K - k)^2 = K + k are K + (1 -+ sqrt(8 K + 1)) / 2; all arithmetic is in integers.
    """
    root = math.isqrt(8 * K + 1)
    ceiling = root + (root * root < 8 * K + 1)
    return (2 * K + 1 - ceiling) // 2
