"""Sigma unrestricted: any positive definite K x K matrix, as in classical seemingly unrelated regressions.

Everything is done at unit diagonal, Sigma = diag(s) (L L') diag(s), so that units of the responses cost no digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from lrgls_dask.sigma.interface import TIGHT, Array, Description, Kind, Sigma, SigmaStep, Stored, Structure
from lrgls_dask.sigma.tangents import Tangents

__all__ = ["FULL", "Full", "FullSigma", "SingularCovariance"]

# The least squared pivot, between 0 and 1, of a Cholesky factor at unit diagonal that is told from zero.
SINGULAR = 1e-13


class SingularCovariance(ValueError):
    """The residuals of some combination of the equations vanish, so that no unrestricted Sigma exists."""


@dataclass(frozen=True, eq=False)
class FullSigma(Sigma):
    """A positive definite covariance of K equations held as a matrix, factored at first use.

    matrix : (K, K) symmetric.  Memory 8 K^2 bytes, twice that once factored.
    Raises ValueError for a matrix that is not square, finite and of positive diagonal.
    """

    matrix: Array
    kinds: ClassVar[tuple[str, ...]] = ("full",)
    saved: ClassVar[tuple[str, ...]] = ("sigma",)

    def __post_init__(self) -> None:
        K = self.matrix.shape[0]
        if self.matrix.shape != (K, K):
            raise ValueError(f"FullSigma needs a square matrix; got shape {self.matrix.shape}.")
        if not (np.isfinite(self.matrix).all() and np.all(self.matrix.diagonal() > 0)):
            bad = int(np.argmax(~(np.isfinite(self.matrix).all(axis=1) & (self.matrix.diagonal() > 0))))
            raise ValueError(
                f"FullSigma needs finite entries and positive variances; row {bad} has variance "
                f"{self.matrix[bad, bad]}."
            )

    @property
    def kind(self) -> str:
        return "full"

    def describe(self) -> Description:
        return Description("Sigma unrestricted", "0", "Sigma is any")

    @property
    def n_equations(self) -> int:
        """K."""
        return int(self.matrix.shape[0])

    @property
    def rank(self) -> int:
        """0: an unrestricted Sigma has no factors."""
        return 0

    @property
    def n_parameters(self) -> int:
        """K (K + 1) / 2."""
        return self.n_equations * (self.n_equations + 1) // 2

    @property
    def variances(self) -> Array:
        """diag(Sigma), (K,)."""
        return self.matrix.diagonal().copy()

    @cached_property
    def _sd(self) -> Array:
        return np.sqrt(self.matrix.diagonal())

    @cached_property
    def _factor(self) -> Array:
        """L, (K, K) lower triangular, of the correlations.  O(K^3).  Raises SingularCovariance."""
        correlation = self.matrix / self._sd[:, None] / self._sd
        try:
            factor = np.asarray(cholesky(correlation, lower=True, check_finite=False))
        except LinAlgError:
            factor = np.zeros((1, 1))
        if np.diagonal(factor).min() ** 2 < SINGULAR:
            raise SingularCovariance("the covariance matrix of the residuals is singular")
        return factor

    def matmul(self, B: Array) -> Array:
        """Sigma B, (K, m) to (K, m).  O(K^2 m)."""
        return self.matrix @ B

    def solve_rows(self, E: Array) -> Array:
        """E Sigma^-1, (n, K) to (n, K).  O(n K^2)."""
        scaled = E.T / self._sd[:, None]
        return np.asarray(cho_solve((self._factor, True), scaled, check_finite=False) / self._sd[:, None]).T

    @cached_property
    def logdet(self) -> float:
        """log|Sigma|."""
        return float(2.0 * (np.log(self._sd).sum() + np.log(np.diagonal(self._factor)).sum()))

    @cached_property
    def precision_diagonal(self) -> Array:
        """diag(Sigma^-1), (K,).  O(K^3)."""
        inverse = solve_triangular(self._factor, np.eye(self.n_equations), lower=True, check_finite=False)
        return np.einsum("ij,ij->j", inverse, inverse) / self._sd**2

    def dense(self) -> Array:
        """Sigma, (K, K)."""
        return self.matrix.copy()

    def rescaled(self, scale: Array) -> Self:
        """diag(scale) Sigma diag(scale): the same covariance after a change of units; scale (K,), no zeros."""
        return type(self)(self.matrix * scale[:, None] * scale)

    def normalised(self) -> Self:
        """Itself: nothing is left to choose."""
        return self

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        """(K,) false: an unrestricted Sigma has no floor."""
        return np.zeros(self.n_equations, dtype=bool)

    def tangents(self, held: NDArray[np.bool_]) -> Tangents:
        """Every sigma_ij, i >= j, row by row of the lower triangle."""
        return Tangents.of_entries(self.n_equations, *np.tril_indices(self.n_equations), unrestricted=True)

    def stored(self) -> Stored:
        return {"sigma": (self.matrix, ("equation", "equation_other"))}


@dataclass(frozen=True)
class Full(Structure):
    """Sigma = S: classical seemingly unrelated regressions."""

    closed_form = True
    bounded = False
    rank = 0

    def matrices(self, n_equations: int) -> int:
        """Each with its factor and its inverse, of the point that is looked at and of the one before."""
        return 8

    def start(self, S: Array, floor: Array) -> FullSigma:
        """S itself."""
        return self.update(S, floor, None).sigma

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[FullSigma]]:
        """S itself: the maximum of the likelihood is unique."""
        return [self.update(S, floor, None)]

    def update(self, S: Array, floor: Array, start: FullSigma | None, *, tol: float = TIGHT) -> SigmaStep[FullSigma]:
        """Sigma = S (K, K).  O(K^3).  Raises SingularCovariance where S is singular to rounding."""
        if not np.all(S.diagonal() > 0):
            raise SingularCovariance("the residuals of an equation vanish")
        sigma = FullSigma(0.5 * (S + S.T))
        _ = sigma._factor  # so that a singular S is noticed here
        return SigmaStep(sigma, accept_t=1.0)

    def n_parameters(self, n_equations: int) -> int:
        """K (K + 1) / 2."""
        return n_equations * (n_equations + 1) // 2

    def pairs_asked_for(self, n_equations: int) -> NDArray[np.bool_]:
        """All."""
        return np.ones((n_equations, n_equations), dtype=bool)


FULL = Kind((FullSigma,), lambda sigma, how: Full())
