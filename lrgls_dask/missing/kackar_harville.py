"""The classical covariance with what estimating Sigma adds in small samples, where rows show only some equations.

As `inference.kackar_harville`, with sums over patterns u of what rows show in place of N times one term: with G_u the
products of whitened columns and Q_u = Sigma_oo^-1, zero elsewhere,

    P_a = sum_u G_u o (Q_u dS_a Q_u),           Q_ab = sum_u G_u o (Q_u dS_a Q_u dS_b Q_u),
    W^-1 = sum_u n_u / 2 tr(Q_u dS_a Q_u dS_b),

o the product with each equation's number for all pairs of its coefficients. Source: Kackar and Harville (1984).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, solve_triangular

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.inference.kackar_harville import MAX_FLOPS, check_unpenalised
from lrgls_dask.missing.covariance import FittedCells, fitted_problem
from lrgls_dask.missing.kernels import whitened_columns
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.tangents import Tangents
from lrgls_dask.solve.constraint import inverse_within

__all__ = ["shown_kackar_harville"]


def shown_kackar_harville(fit: FittedCells, rows: Rows | CompressedPatterns) -> np.ndarray:
    """(P, P) in the user's units; one pass, and 2 m (U (3 K^3 + 2 P^2) + 2 P^3) flops, U patterns, m parameters.

    Raises ValueError for penalised estimates, for rows of more patterns than are compressed and above MAX_FLOPS, and as
    `missing.covariance.incomplete_covariance`; LinAlgError where Sigma's parameters are not identified.
    """
    check_unpenalised(fit.lam_B)
    if fit.lam_F > 0:
        raise ValueError(
            f"the information of Sigma's parameters is that of an unpenalised Sigma, but lam_F is {fit.lam_F:g}. Fit "
            "with lam_F = 0, or use classical or robust standard errors."
        )
    if fit.streamed:
        raise ValueError(
            "the Kackar-Harville covariance sums over the patterns of missing responses, and these rows have more than "
            "were kept. Use kind='classical', which differs from it by terms that fall as 1 / N, or kind='observed'."
        )
    problem = fitted_problem(fit, rows)
    sigma = fit.sigma.rescaled(1.0 / problem.whitened.y_scale)
    tangents = sigma.tangents(sigma.on_floor(fit.d_floor))
    patterns = _Patterns(problem, sigma)
    _check_cost(problem, tangents, len(patterns.counts))
    order = problem.order
    information = patterns.information()
    phi = np.empty_like(information)
    phi[np.ix_(order, order)] = inverse_within(information[np.ix_(order, order)], problem.free)
    covariance = phi + phi @ _middle(patterns, phi, tangents.moves(_roots(patterns, tangents))) @ phi
    covariance = problem.covariance(covariance[np.ix_(order, order)])
    symmetric: np.ndarray = 0.5 * (covariance + covariance.T)
    return symmetric


class _Patterns:
    """Of each pattern how many rows it has, the products of its whitened columns, and Sigma_oo^-1, zero elsewhere."""

    def __init__(self, problem: Incomplete, sigma: Sigma) -> None:
        params = problem.params_at(np.zeros(problem.design.n_coefficients), sigma)
        dense, self.equation_of = sigma.dense(), problem.design.equation_of
        self.counts: list[float] = []
        self.grams: list[np.ndarray] = []
        self.precisions: list[np.ndarray] = []
        for slab in problem.by_pattern():
            shown = np.flatnonzero(slab.observed[0])
            if not len(shown) or slab.count is None:
                continue
            columns, _ = whitened_columns(slab, params)
            precision = np.zeros_like(dense)
            precision[np.ix_(shown, shown)] = np.linalg.inv(dense[np.ix_(shown, shown)])
            self.counts.append(float(slab.count.sum()))
            self.grams.append(columns.T @ columns)
            self.precisions.append(precision)

    def wide(self, between: np.ndarray) -> np.ndarray:
        """(P, P) from (K, K)."""
        return np.asarray(between[np.ix_(self.equation_of, self.equation_of)])

    def information(self) -> np.ndarray:
        """(P, P) sum_i X_o' Sigma_oo^-1 X_o of the whitened coefficients in the order of equations."""
        total = np.zeros_like(self.grams[0])
        for gram, precision in zip(self.grams, self.precisions, strict=True):
            total += gram * self.wide(precision)
        return total


def _roots(patterns: _Patterns, tangents: Tangents) -> np.ndarray:
    """(m, m) L, L L' the inverse of the expected information of Sigma's parameters."""
    n_obs, m = sum(patterns.counts), tangents.n_parameters
    information = np.zeros((m, m))
    if tangents.flat.shape[1]:
        information += n_obs * (tangents.flat @ tangents.flat.T)
    for count, precision in zip(patterns.counts, patterns.precisions, strict=True):
        information += count * tangents.curvature(precision, np.zeros_like(precision))
    try:
        root = np.linalg.cholesky(information)
    except LinAlgError:
        raise LinAlgError(
            "the information of Sigma's parameters is not positive definite: the factors are more than what rows show "
            "together identifies. Use a smaller rank, or classical standard errors."
        ) from None
    return np.asarray(solve_triangular(root, np.eye(m), lower=True).T)


def _middle(patterns: _Patterns, phi: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """sum over directions r of Q_rr - P_r Phi P_r, (P, P)."""
    out = np.zeros_like(phi)
    for move in directions:
        first = np.zeros_like(phi)
        for gram, Q in zip(patterns.grams, patterns.precisions, strict=True):
            once = Q @ move @ Q
            first += gram * patterns.wide(once)
            out += gram * patterns.wide(once @ move @ Q)
        out -= first @ phi @ first
    return 0.5 * (out + out.T)


def _check_cost(problem: Incomplete, tangents: Tangents, n_patterns: int) -> None:
    P, K, m = problem.design.n_coefficients, problem.design.n_equations, tangents.n_parameters
    flops = 2.0 * m * (n_patterns * (3.0 * K**3 + 2.0 * P**2) + 2.0 * P**3)
    if flops > MAX_FLOPS:
        raise ValueError(
            f"the Kackar-Harville covariance of {P} coefficients with {n_patterns:,} patterns of missing responses "
            f"takes {flops:.1e} operations; the limit is {MAX_FLOPS:.0e}. Its correction falls as 1 / N: use classical "
            "standard errors, or a smaller rank."
        )
