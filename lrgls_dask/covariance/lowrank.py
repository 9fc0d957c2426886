"""Sigma = F F' + diag(d): one factorisation, then products, solves and determinants without a K x K array.

With G = D^-1/2 F and C = I + G'G = R'R (R upper triangular), Woodbury (1950) reads

    Sigma^-1 = D^-1 - H H',   H = D^-1 F R^-1   (K, k),        log|Sigma| = sum log d + 2 sum log R_mm.

R comes from a QR factorisation of [I; G], which squares no condition number: at d near the floor G'G holds 1/floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from lrgls_dask.covariance.interface import Array, Sigma, Stored

__all__ = ["Array", "LowRank", "max_rank"]

# Woodbury loses log10(F_i'F_i / d_i) of 15 digits in row i.  Below 1e3 enough are left; above, each refinement gains
# again what the first solution had right, until 14 digits are: good to d_i = 1e-12 F_i'F_i, not beyond.
REFINE_ABOVE = 1e3
DIGITS, WANTED_DIGITS = 15.0, 14.0
# Entries of a column of F that differ by less than this fraction tie for largest: rounding must not choose the sign.
TIE = 1e-9
FLOOR_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class LowRank(Sigma):
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
        if not (np.all(self.d > 0.0) and np.all(np.isfinite(self.d)) and np.all(np.isfinite(self.F))):
            bad = int(np.argmax(~((self.d > 0.0) & np.isfinite(self.d) & np.isfinite(self.F).all(axis=1))))
            raise ValueError(
                f"LowRank needs finite F and finite d > 0; row {bad} has d = {self.d[bad]}, F = {self.F[bad]}."
            )

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

    @property
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""
        return self.d + np.einsum("ik,ik->i", self.F, self.F)

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

    @cached_property
    def _signal_to_noise(self) -> Array:
        """F_i'F_i / d_i, (K,): the digits that Woodbury loses in row i."""
        return np.einsum("ik,ik->i", self.F, self.scaled_loadings)

    @cached_property
    def _refinements(self) -> int:
        worst = float(np.max(self._signal_to_noise, initial=0.0))
        if worst <= REFINE_ABOVE:
            return 0
        return math.ceil(WANTED_DIGITS / max(DIGITS - math.log10(worst), 1.0)) - 1

    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m) to (K, m).  O(K k m)."""
        return self.F @ (self.F.T @ B) + self.d[:, None] * B

    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K) to (n, K), rows in any number.  O(n K k), no K x K array; memory two arrays like E.

        Source: Woodbury (1950); iterative refinement (Wilkinson 1963) when some d_i is below a thousandth of F_i'F_i.
        """
        return self._refined(E, self._solve_rows_once(E))

    def _refined(self, E: Array, out: Array) -> Array:
        """`out`, a first approximation to E Sigma^-1, improved until it has WANTED_DIGITS."""
        for _ in range(self._refinements):
            residual = E - out * self.d
            residual -= (out @ self.F) @ self.F.T
            out += self._solve_rows_once(residual)
        return out

    def _solve_rows_once(self, E: Array) -> Array:
        out = np.asarray(E / self.d)
        out -= (E @ self._half) @ self._half.T
        return out

    @cached_property
    def logdet(self) -> float:
        """log|Sigma| = sum log d + log|C|."""
        return float(np.log(self.d).sum() + 2.0 * np.log(np.diagonal(self.capacitance_cholesky)).sum())

    @cached_property
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,).  O(K k), and O(K k) more for each row that needs refinement."""
        out = 1.0 / self.d - np.einsum("ik,ik->i", self._half, self._half)
        delicate = np.flatnonzero(self._signal_to_noise > REFINE_ABOVE)
        if delicate.size:
            units = np.zeros((delicate.size, self.n_equations))
            units[np.arange(delicate.size), delicate] = 1.0
            out[delicate] = self.solve_rows(units)[np.arange(delicate.size), delicate]
        return out

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        out = self.F @ self.F.T
        out[np.diag_indices_from(out)] += self.d
        return out

    def rescaled(self, scale: Array) -> LowRank:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return LowRank(F=self.F * scale[:, None], d=self.d * scale**2)

    def normalised(self) -> LowRank:
        """The same Sigma, loadings rotated to the stated normalisation.  O(K k^2).

        F' D^-1 F is diagonal and descending; the entry of largest magnitude in each column of F is positive (of several
        that tie, the first).  Unique when the diagonal of F' D^-1 F has no ties.  Source: Lawley & Maxwell (1971), 2.3.
        """
        rotation = np.linalg.svd(self.F / np.sqrt(self.d)[:, None], full_matrices=False)[2].T
        F = self.F @ rotation
        size = np.abs(F)
        largest = np.argmax(size >= (1.0 - TIE) * size.max(axis=0, initial=0.0), axis=0)
        signs = np.where(F[largest, np.arange(self.rank)] < 0.0, -1.0, 1.0)
        return LowRank(F=F * signs, d=self.d)

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) where d is its floor (K,): Heywood cases."""
        return np.asarray(self.d <= floor * (1.0 + FLOOR_ROUNDING))

    def stored(self) -> Stored:
        return {"loadings": (self.F, ("equation", "factor")), "idio_var": (self.d, ("equation",))}


def max_rank(K: int) -> int:
    """The largest k with (K - k)^2 >= K + k (Ledermann 1937): more factors than that are not identified.

    The roots of (K - k)^2 = K + k are K + (1 -+ sqrt(8 K + 1)) / 2; all arithmetic is in integers.
    """
    root = math.isqrt(8 * K + 1)
    ceiling = root + (root * root < 8 * K + 1)
    return (2 * K + 1 - ceiling) // 2
