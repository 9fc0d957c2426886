"""Factors of all equations and a variance of each equation's own: the structure of `LowRank`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.interface import TIGHT, Array, FactorStructure, Kind, Settings, Sigma, SigmaStep
from lrgls_dask.sigma.leading import by_lanczos
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.of_rows import Moments, OfRows
from lrgls_dask.sigma.pca import pca_step

__all__ = ["LOW_RANK", "LowRankStructure", "diagonal", "widened"]

SCALED, EIGEN_COPIES, PENALISED = 3, 3, 2  # arrays (K, K), of a search for Sigma


@dataclass(frozen=True)
class LowRankStructure(FactorStructure):
    """Sigma = F F' + diag(d) with `rank` factors; rank 0 is diagonal.

    sigma_step : "ml", maximum likelihood factor analysis, or "pca", principal components with a line search.
    lam_F : lam_F / 2 ||F||^2 is added to nll per row.
    """

    rank: int
    sigma_step: Literal["ml", "pca"] = "ml"
    lam_F: float = 0.0

    needs_matrix = False

    @cached_property
    def line_search(self) -> bool:  # type: ignore[override]  # nothing writes to a frozen structure
        return self.sigma_step == "pca"

    @property
    def takes_rows(self) -> bool:  # type: ignore[override]  # nothing writes to a frozen structure
        return self.sigma_step == "ml" and self.lam_F == 0.0

    def by_likelihood(self) -> LowRankStructure:
        """The same, found by maximum likelihood."""
        return replace(self, sigma_step="ml")

    def start(self, S: Moments, floor: Array) -> LowRank:
        """diag(S)."""
        return LowRank(np.zeros((len(S), 0)), np.maximum(S.diagonal(), floor))

    def candidates(self, S: Moments, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[LowRank]]:
        """Every distinct optimum that several deterministic starts find."""
        if self.sigma_step == "pca":
            assert not isinstance(S, OfRows)
            return [pca_step(S, self.rank, floor, lam_F=self.lam_F, start=self.start(S, floor))]
        return ml_candidates(S, self.rank, floor, lam_F=self.lam_F, tol=tol)

    def update(self, S: Moments, floor: Array, start: LowRank, *, tol: float = TIGHT) -> SigmaStep[LowRank]:
        """One step, or one maximisation, from `start`, whose rank may be smaller."""
        if self.sigma_step == "pca":
            assert not isinstance(S, OfRows)
            return pca_step(S, self.rank, floor, lam_F=self.lam_F, start=start)
        return ml_step(S, self.rank, floor, lam_F=self.lam_F, start=start, tol=tol)

    def penalty(self, sigma: LowRank) -> float:
        """lam_F / 2 ||F||^2."""
        return 0.5 * self.lam_F * float(np.sum(sigma.F**2))

    def n_parameters(self, n_equations: int) -> int:
        """K k + K - k (k - 1) / 2."""
        return n_equations * (self.rank + 1) - self.rank * (self.rank - 1) // 2

    def matrices(self, n_equations: int) -> int:
        """S in the units of d, once more while these change, and what solving with Sigma takes for a penalised search;
        a dense solver of eigenvalues has copies of its own."""
        dense = 0 if by_lanczos(n_equations, self.rank) else EIGEN_COPIES
        return SCALED + dense + (PENALISED if self.lam_F else 0)

    def loadings(self, n_equations: int) -> Blocks:
        """Which loadings may differ from zero: all."""
        return Blocks.single(n_equations, self.rank)

    def value(self, wide: LowRank) -> LowRank:
        """Itself."""
        return wide


def diagonal() -> LowRankStructure:
    """Sigma = diag(d): every equation by itself."""
    return LowRankStructure(0)


def widened(sigma: Sigma) -> LowRank:
    """`Sigma.widened`: the same matrix, all factors side by side, the zeros of their loadings among the numbers."""
    wide: LowRank = sigma.widened()
    return wide


def _like(sigma: LowRank, how: Settings) -> LowRankStructure:
    return LowRankStructure(sigma.rank, how.sigma_step, how.lam_F)


LOW_RANK = Kind((LowRank,), _like)
