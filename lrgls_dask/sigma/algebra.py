"""What Sigmas with a variance of each equation's own have in common: Sigma = (factors) + diag(d) by Woodbury.

A solution by Woodbury (1950) subtracts what factors share from 1 / d_i and loses digits where d_i is small beside them.
Iterative refinement (Wilkinson 1963) gains them back.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.interface import Array, Sigma

__all__ = ["REFINE_ABOVE", "OwnVariances", "column_signs"]

# Woodbury loses log10(f_i / d_i) of 15 digits in row i, f_i the factors' part of its variance.  Below 1e3 enough are
# left; above, each refinement gains again what the first solution had right, until 14 digits are: good to
# d_i = 1e-12 f_i, not beyond.
REFINE_ABOVE = 1e3
DIGITS, WANTED_DIGITS = 15.0, 14.0
# Entries of a column of loadings that differ by less than this fraction tie for largest: rounding must not choose.
TIE = 1e-9
# A variance this little above its floor, relatively, is on it: rounding, as in a change of units, may put it there.
FLOOR_ROUNDING = 1e-6


class OwnVariances(Sigma):
    """Factors' part plus diag(d), d (K,) > 0, with Sigma^-1 = D^-1 - sum of H H'.  A kind of it gives what is abstract.

    A solve costs 1 + `_refinements` times `_solve_rows_once`, and as many products but one.
    """

    d: Array

    @property
    @abstractmethod
    def factor_variances(self) -> Array:
        """The factors' part of diag(Sigma), (K,)."""

    @property
    @abstractmethod
    def _halves(self) -> tuple[Array, ...]:
        """The H, compact (K, r) each: row i of one has the entries of equation i on its own r factors."""

    @abstractmethod
    def _rows_matmul(self, E: Array) -> Array:
        """E Sigma, (n, K), in memory of its own."""

    @abstractmethod
    def _solve_rows_once(self, E: Array) -> Array:
        """E Sigma^-1 by Woodbury, (n, K), in memory of its own."""

    @property
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""
        return self.d + self.factor_variances

    @cached_property
    def _signal_to_noise(self) -> Array:
        """(K,) how many times the factors' part of a variance exceeds d: the digits that Woodbury loses there."""
        return self.factor_variances / self.d

    @cached_property
    def _refinements(self) -> int:
        worst = float(np.max(self._signal_to_noise, initial=0.0))
        if worst <= REFINE_ABOVE:
            return 0
        return math.ceil(WANTED_DIGITS / max(DIGITS - math.log10(worst), 1.0)) - 1

    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m) to (K, m).  Costs O(K m) times the factors of an equation."""
        return self._rows_matmul(B.T).T

    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K) to (n, K), rows in any number, no K x K array; memory two arrays like E.

        Costs O(n K) times the factors of an equation.
        """
        return self._refined(E, self._solve_rows_once(E))

    def _refined(self, E: Array, out: Array) -> Array:
        """`out`, a first approximation to E Sigma^-1, improved until it has WANTED_DIGITS."""
        for _ in range(self._refinements):
            residual = self._rows_matmul(out)
            out += self._solve_rows_once(np.subtract(E, residual, out=residual))
        return out

    @cached_property
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,).  O(K) times the factors of an equation, and so much more for each refined row."""
        out = 1.0 / self.d
        for half in self._halves:
            out -= np.einsum("ik,ik->i", half, half)
        delicate = np.flatnonzero(self._signal_to_noise > REFINE_ABOVE)
        if delicate.size:
            units = np.zeros((delicate.size, self.n_equations))
            units[np.arange(delicate.size), delicate] = 1.0
            out[delicate] = self.solve_rows(units)[np.arange(delicate.size), delicate]
        return out

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) where d is its floor, (K,) or one for all: Heywood cases."""
        return np.asarray(self.d <= floor * (1.0 + FLOOR_ROUNDING))

    def _check_rows(self, name: str, loadings: Array) -> None:
        """Raise ValueError unless the loadings (K, s) are finite and d is finite and positive."""
        fine = (self.d > 0.0) & np.isfinite(self.d) & np.isfinite(loadings).all(axis=1)
        if not fine.all():
            bad = int(np.argmin(fine))
            raise ValueError(
                f"{type(self).__name__} needs finite {name} and finite d > 0; row {bad} has d = {self.d[bad]}, "
                f"{name} = {loadings[bad]}."
            )


def column_signs(F: Array) -> Array:
    """(k,) 1 or -1, to make the largest entry of each column of F (K, k) positive, of several that tie the first."""
    size = np.abs(F)
    largest = np.argmax(size >= (1.0 - TIE) * size.max(axis=0, initial=0.0), axis=0)
    return np.where(F[largest, np.arange(F.shape[1])] < 0.0, -1.0, 1.0)
