"""The matrix-free update for K too large to hold S (K x K): EM with S only through S B and diag S, accelerated.

One round costs one pass over the data: at Sigma form B = Sigma^-1 F, read S B and diag S; both the exact nll at Sigma
(`nll_from_products`) and the next Sigma (`em_update`) follow in O(K k^2).  Acceleration saves most
of the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrgls_dask.sigma.interface import LOG_2PI, Array
from lrgls_dask.sigma.lowrank import LowRank

__all__ = [
    "LARGEST_VARIANCE",
    "em_products",
    "em_update",
    "flattened",
    "nll_from_products",
    "on_factors",
    "rounding_of_products",
    "unflattened",
]

LARGEST_VARIANCE = 1e6  # in standard units: far beyond any optimum, where a long trial step would overflow


def em_products(sigma: LowRank) -> Array:
    """B = Sigma^-1 F, (K, k): the columns that S has to be applied to."""
    return sigma.precision_loadings


def em_update(
    sigma: LowRank,
    SB: Array,
    diag_S: Array,
    floor: Array,
    *,
    lam_F: float = 0.0,
    free: NDArray[np.bool_] | None = None,
    expand: Sequence[NDArray[np.intp]] = (),
) -> LowRank:
    """The next Sigma of the EM algorithm; nll + lam_F/2 ||F||^2 never rises.

    SB : S B (K, k) at B = em_products(sigma).  diag_S, floor : (K,).  free : (K, k) loadings that may differ from zero,
    all if None.  O(K k^2), O(K k^3) with a penalty or zeros.
    With E[z z'] = C^-1 + B' S B = M:  F = S B M^-1,  d = max(diag(S - F B' S), floor).  The M step is separate for each
    row, so the floor keeps it exact.  Source: Rubin & Thayer (1982), section 2.
    expand : sets of factors of the same equations whose covariance in M is fitted too and taken into their loadings,
    without a penalty: otherwise it moves to I over as many rounds as there are equations (PX-EM, Liu, Rubin and Wu
    1998).
    """
    R_inverse = np.linalg.inv(sigma.capacitance_cholesky)
    M = R_inverse @ R_inverse.T + em_products(sigma).T @ SB
    M = 0.5 * (M + M.T)
    if lam_F == 0.0 and free is None:
        F = np.asarray(np.linalg.solve(M, SB.T).T, dtype=np.float64)
        return LowRank(_expanded(F, M, expand), np.maximum(diag_S - np.einsum("ik,ik->i", F, SB), floor))
    # the penalty ties F to d, so each is found given the other: F first (Meng & Rubin 1993)
    ridged = M + lam_F * sigma.d[:, None, None] * np.eye(sigma.rank)
    F = on_factors(ridged, SB, free)
    residual = diag_S - 2.0 * np.einsum("ik,ik->i", F, SB) + np.einsum("ik,kl,il->i", F, M, F)
    return LowRank(_expanded(F, M, expand), np.maximum(residual, floor))


def _expanded(F: Array, moments: Array, together: Sequence[NDArray[np.intp]]) -> Array:
    """F for factors of unit covariance, from one for factors whose covariance is that of their moments (k, k)."""
    expanded = F.copy()
    for factors in together:
        value, vector = np.linalg.eigh(moments[np.ix_(factors, factors)])
        expanded[:, factors] = F[:, factors] @ ((vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T)
    return expanded


def on_factors(moments: Array, products: Array, free: NDArray[np.bool_] | None) -> Array:
    """(K, k) the regression of each equation on the factors that touch it, zero for the others.

    moments : (K, k, k) of the factors.  products : (K, k) with the equation.  free : (K, k) what touches what, None for
    all. O(K k^3).
    """
    if free is not None:
        # the factors that do not touch an equation keep a pivot and no slope
        moments = np.where(free[:, :, None] & free[:, None, :], moments, np.eye(moments.shape[-1]))
        products = products * free
    return np.asarray(np.linalg.solve(moments, products[:, :, None])[:, :, 0], dtype=np.float64)


def nll_from_products(sigma: LowRank, SB: Array, diag_S: Array) -> float:
    """nll of one row at `sigma` from S B (K, k), B = Sigma^-1 F, and diag S (K,); exact, O(K k).

    tr(Sigma^-1 S) = tr(D^-1 S) - tr(D^-1 F B' S); the difference loses log10(s_ii / d_i) digits.
    """
    trace = float((diag_S / sigma.d).sum() - np.vdot(sigma.scaled_loadings, SB))
    return 0.5 * (sigma.n_equations * LOG_2PI + sigma.logdet + trace)


def rounding_of_products(sigma: LowRank, diag_S: Array) -> float:
    """What rounding leaves uncertain of `nll_from_products`: of each term of the difference a few units in the last."""
    return float(2.0 * np.finfo(float).eps * (diag_S / sigma.d).sum())


def flattened(sigma: LowRank) -> Array:
    """(F, log d) as one vector, (K (k + 1),): the coordinates in which the EM map is accelerated."""
    return np.concatenate([sigma.F.ravel(), np.log(sigma.d)])


def unflattened(z: Array, rank: int, floor: Array) -> LowRank:
    """The Sigma of a flat vector (K (rank + 1),), d brought up to floor (K,) and down to LARGEST_VARIANCE."""
    size = floor.size * rank
    d = np.exp(np.minimum(z[size:], np.log(LARGEST_VARIANCE)))
    return LowRank(z[:size].reshape(floor.size, rank), np.maximum(d, floor))
