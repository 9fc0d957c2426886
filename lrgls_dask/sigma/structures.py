"""The structures with factors, and every kind of stored Sigma by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.full import Full, FullSigma
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.grouped_structure import GroupedStructure
from lrgls_dask.sigma.interface import TIGHT, Array, Sigma, SigmaStep, Structure
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.pca import pca_step
from lrgls_dask.sigma.sparse import SparseFactors, SparseStructure

__all__ = [
    "FactorStructure",
    "Factored",
    "LowRankStructure",
    "diagonal",
    "loadings_in",
    "sigma_of",
    "structure_of",
    "widened",
]

# Sigmas with loadings F (K, k), wide and with their zeros, and idiosyncratic variances d (K,).
Factored = LowRank | GroupedFactors


@dataclass(frozen=True)
class LowRankStructure:
    """Sigma = F F' + diag(d) with `rank` factors; rank 0 is diagonal.

    sigma_step : "ml", maximum likelihood factor analysis, or "pca", principal components with a line search.
    lam_F : lam_F / 2 ||F||^2 is added to nll per row.
    """

    rank: int
    sigma_step: Literal["ml", "pca"] = "ml"
    lam_F: float = 0.0

    closed_form = False
    bounded = True
    needs_matrix = False

    @property
    def line_search(self) -> bool:
        return self.sigma_step == "pca"

    def start(self, S: Array, floor: Array) -> LowRank:
        """diag(S)."""
        return LowRank(np.zeros((len(S), 0)), np.maximum(S.diagonal(), floor))

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[LowRank]]:
        """Every distinct optimum that several deterministic starts find."""
        if self.sigma_step == "pca":
            return [pca_step(S, self.rank, floor, lam_F=self.lam_F, start=self.start(S, floor))]
        return ml_candidates(S, self.rank, floor, lam_F=self.lam_F, tol=tol)

    def update(self, S: Array, floor: Array, start: LowRank, *, tol: float = TIGHT) -> SigmaStep[LowRank]:
        """One step, or one maximisation, from `start`, whose rank may be smaller."""
        if self.sigma_step == "pca":
            return pca_step(S, self.rank, floor, lam_F=self.lam_F, start=start)
        return ml_step(S, self.rank, floor, lam_F=self.lam_F, start=start, tol=tol)

    def penalty(self, sigma: LowRank) -> float:
        """lam_F / 2 ||F||^2."""
        return 0.5 * self.lam_F * float(np.sum(sigma.F**2))

    def n_parameters(self, n_equations: int) -> int:
        """K k + K - k (k - 1) / 2."""
        return n_equations * (self.rank + 1) - self.rank * (self.rank - 1) // 2

    def loadings(self, n_equations: int) -> Blocks:
        """Which loadings may differ from zero: all."""
        return Blocks.single(n_equations, self.rank)

    def value(self, wide: LowRank) -> LowRank:
        """Itself."""
        return wide


# Structures whose loadings an EM round can find row by row of F, by least squares on the factors.
FactorStructure = LowRankStructure | GroupedStructure


def loadings_in(sigma: Factored) -> Blocks:
    """Which loadings of a Sigma may differ from zero."""
    return sigma.blocks if isinstance(sigma, GroupedFactors) else Blocks.single(sigma.n_equations, sigma.rank)


def widened(sigma: Factored) -> LowRank:
    """The same Sigma with all its factors side by side, the zeros of its loadings among the numbers."""
    return sigma if type(sigma) is LowRank else LowRank(sigma.F, sigma.d)


def diagonal() -> LowRankStructure:
    """Sigma = diag(d): every equation by itself."""
    return LowRankStructure(0)


@dataclass(frozen=True)
class Settings:
    """How the Sigma of a fit was found, as far as it does not show: options of `LowRankGLS` by their names."""

    sigma_step: Literal["ml", "pca"] = "ml"
    lam_F: float = 0.0
    l1: float = 0.0


def _low_rank(sigma: LowRank, how: Settings) -> LowRankStructure:
    return LowRankStructure(sigma.rank, how.sigma_step, how.lam_F)


@dataclass(frozen=True)
class Kind:
    """A kind of Sigma. saved : arrays by name.  made : it, of them in that order.  structure : what finds its like."""

    saved: tuple[str, ...]
    made: Callable[..., Sigma]
    structure: Callable[[Any, Settings], Structure]


# Each kind of Sigma that a fit or a checkpoint may hold.
KINDS: dict[str, Kind] = {
    "lowrank": Kind(LowRank.saved, LowRank, _low_rank),
    "diagonal": Kind(LowRank.saved, LowRank, _low_rank),
    "full": Kind(FullSigma.saved, FullSigma, lambda sigma, how: Full()),
    "sparse": Kind(SparseFactors.saved, SparseFactors, lambda sigma, how: SparseStructure(sigma.rank, how.l1)),
    "grouped": Kind(
        GroupedFactors.saved, GroupedFactors.from_arrays, lambda sigma, how: GroupedStructure(sigma.blocks)
    ),
}


def structure_of(sigma: Sigma, sigma_step: Literal["ml", "pca"], lam_F: float, l1: float = 0.0) -> Structure:
    """The structure that finds Sigmas like this one: its kind, its rank, and how those with factors are found."""
    return KINDS[sigma.kind].structure(sigma, Settings(sigma_step, lam_F, l1))


def sigma_of(kind: str, read: Callable[[str], Array]) -> Sigma:
    """The Sigma saved as `kind`.  read : name of an array to the array.  Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"covariance kind {kind!r} is unknown; known are {', '.join(KINDS)}. Upgrade lrgls_dask.")
    return KINDS[kind].made(*[read(name) for name in KINDS[kind].saved])
