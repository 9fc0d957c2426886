"""What Sigmas of factors and a part of the equations' own have in common: Sigma = (factors) + Psi by Woodbury.

A solution by Woodbury (1950) subtracts what factors share from Psi^-1 and loses digits where Psi is small beside them.
Iterative refinement (Wilkinson 1963) gains them back.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.interface import Array, Pattern, Sigma
from lrgls_dask.sigma.own import Own
from lrgls_dask.sigma.tangents import Tangents

__all__ = ["REFINE_ABOVE", "FactorsAndOwn", "check_rows", "column_signs"]

# Woodbury loses log10(f_i / d_i) of 15 digits in row i, f_i the factors' part of its variance and d_i what is its own
# given all others.  Below 1e3 enough are left; above, each refinement gains again what the first solution had right,
# until 14 digits are: good to d_i = 1e-12 f_i, not beyond.
REFINE_ABOVE = 1e3
DIGITS, WANTED_DIGITS = 15.0, 14.0
# Entries of a column of loadings that differ by less than this fraction tie for largest: rounding must not choose.
TIE = 1e-9


class FactorsAndOwn(Sigma):
    """Factors' part plus own part Psi, with Sigma^-1 = Psi^-1 - sum of H H'.  A kind of it gives what is abstract.

    A solve costs 1 + `_refinements` times `_solve_rows_once`, and as many products but one.
    """

    @property
    @abstractmethod
    def own(self) -> Own:
        """Psi, factored once."""

    @abstractmethod
    def loadings(self) -> Array:
        """F (K, rank), with its zeros."""

    @abstractmethod
    def pattern(self) -> Pattern:
        """Which of F may differ from zero."""

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
        return self.own.variances + self.factor_variances

    @cached_property
    def _signal_to_noise(self) -> Array:
        """(K,) the factors' part of a variance by the noise of its own part: the digits that Woodbury loses there."""
        return self.factor_variances / self.own.noise

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
        out = self.own.inverse_diagonal
        for half in self._halves:
            out -= np.einsum("ik,ik->i", half, half)
        delicate = np.flatnonzero(self._signal_to_noise > REFINE_ABOVE)
        if delicate.size:
            units = np.zeros((delicate.size, self.n_equations))
            units[np.arange(delicate.size), delicate] = 1.0
            out[delicate] = self.solve_rows(units)[np.arange(delicate.size), delicate]
        return out

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) where the own part is on its floor, (K,) or one for all: Heywood cases."""
        return self.own.on_floor(floor)

    def own_part(self) -> Array:
        """Psi, (K, K)."""
        out = np.zeros((self.n_equations,) * 2)
        self.own.add_to(out)
        return out

    def own_variances(self) -> Array:
        """diag(Psi), (K,)."""
        return self.own.variances

    def tangents(self, held: NDArray[np.bool_]) -> Tangents:
        """Free loadings and the entries of Psi that are free."""
        pattern = self.pattern()
        columns = pattern.columns
        rows = np.repeat(np.arange(len(columns)), columns.shape[1])
        return Tangents(self.loadings(), rows, columns.ravel(), pattern.together, *self.own.entries(held))

    def normalisation(self, tangents: Tangents) -> Array:
        """(g, m) derivatives of the entries beside the diagonal of F' Psi^-1 F among factors of the same equations."""
        return tangents.normalisation(self.own.solve(self.loadings()))

    def factor_score_weights(self, method: str) -> Array:
        """(K, rank) A such that the scores of a residual row r are r A.

        "regression": A = Sigma^-1 F, the mean of the factors given r (Thomson 1939), shrunken towards 0.
        "bartlett": A = Psi^-1 F (F' Psi^-1 F)^-1, unbiased given the factors (Bartlett 1937).
        Raises ValueError where there are no factors, or where one has no loadings to be told by.
        """
        if self.rank == 0:
            return super().factor_score_weights(method)
        if method == "regression":
            return self.precision_loadings
        if method != "bartlett":
            raise ValueError(f"method must be 'regression' or 'bartlett'; got {method!r}.")
        Q, R = np.linalg.qr(self.own.whitened(self.loadings()))
        size = np.abs(np.diagonal(R))
        if size.min() <= np.finfo(np.float64).eps * self.n_equations * size.max():
            raise ValueError(
                f"Bartlett scores need {self.rank} factors that differ, but factor {int(size.argmin()) + 1} has no "
                "loadings of its own. Fit with a smaller rank, or use method='regression'."
            )
        return self.own.whitened_back(np.linalg.solve(R, Q.T).T)

    @property
    @abstractmethod
    def precision_loadings(self) -> Array:
        """Sigma^-1 F, (K, rank)."""


def check_rows(kind: str, name: str, loadings: Array, d: Array) -> None:
    """Raise ValueError unless the loadings (K, s) are finite and d (K,) is finite and positive."""
    fine = (d > 0.0) & np.isfinite(d) & np.isfinite(loadings).all(axis=1)
    if not fine.all():
        bad = int(np.argmin(fine))
        raise ValueError(
            f"{kind} needs finite {name} and finite d > 0; row {bad} has d = {d[bad]}, {name} = {loadings[bad]}."
        )


def column_signs(F: Array) -> Array:
    """(k,) 1 or -1, to make the largest entry of each column of F (K, k) positive, of several that tie the first."""
    size = np.abs(F)
    largest = np.argmax(size >= (1.0 - TIE) * size.max(axis=0, initial=0.0), axis=0)
    return np.where(F[largest, np.arange(F.shape[1])] < 0.0, -1.0, 1.0)
