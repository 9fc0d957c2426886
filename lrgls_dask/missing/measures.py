"""Measures of fit and tests where rows show only some equations: sums over what is observed, one read or none.

McElroy's R2 is 1 - sum_i r_o' Sigma_oo^-1 r_o / sum_i (y_o - m_o)' Sigma_oo^-1 (y_o - m_o), m (K,) the constants that
make the second sum least: those of a system with nothing but a constant in every equation. Where nothing is missing m
is the mean, and this is McElroy's (1977) own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lrgls_dask.inference.hypothesis_tests import DIAGONAL, HypothesisTest, chi2_test
from lrgls_dask.inference.measures import squares_about_mean
from lrgls_dask.missing.kernels import MaskedParams, residuals_of
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.slabs import MaskedSlab
from lrgls_dask.rows.moments import Summed
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.shown import Rows
from lrgls_dask.solve.starting_values import least_squares

__all__ = ["shown_breusch_pagan", "shown_mcelroy_r2", "shown_system_r2"]

ROUNDING = 1e-13  # of a sum about a far origin


@dataclass(frozen=True, eq=False)
class QuadraticMoments(Summed):
    """residual : sum r_o' Sigma_oo^-1 r_o.  total : the same of Y less some of the constants.  along : (K,) sum
    Sigma_oo^-1 y_o of that times the constants, precision : (K, K) sum Sigma_oo^-1 times those on both sides."""

    residual: float
    total: float
    along: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class CommonMoments(Summed):
    """Over the rows that show j and l: cross (K, K) of r_j r_l, squares (K, K) of r_j^2, pairs (K, K) their number."""

    cross: np.ndarray
    squares: np.ndarray
    pairs: np.ndarray


def quadratic_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> QuadraticMoments | None:
    """QuadraticMoments of some slabs; params.level is that of the residuals; n k K^2 multiplications."""
    total: QuadraticMoments | None = None
    for slab in slabs:
        residual = residuals_of(slab, params)
        y, constants = _about_constants(slab, params)
        rows = params.sigma.rows(slab.observed)
        solved = rows.given(y).scaled
        part = QuadraticMoments(
            float(np.sum(residual * rows.given(residual).scaled)),
            float(np.sum(y * solved)),
            np.einsum("ij,ij->j", constants, solved),
            _summed_precision(rows, constants),
        )
        total = part if total is None else total + part
    return total


def _about_constants(slab: MaskedSlab, params: MaskedParams) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) responses in units of `scale`, less what is some of a constant, and the constants, zero where missing."""
    unit = np.ones((len(slab.x), 1)) if slab.unit is None else slab.unit[:, None]
    if params.constants is None:
        return slab.y / params.scale, unit * slab.observed
    q = slab.x.shape[1]
    y = (slab.y + unit * params.origin[q:] * slab.observed) / params.scale
    return y, (slab.x @ params.constants + unit * (params.origin[:q] @ params.constants)) * slab.observed


def _summed_precision(rows: Rows, constants: np.ndarray) -> np.ndarray:
    """(K, K) sum_i Sigma_oo^-1 times constants_i constants_i', entry by entry; n k K^2 multiplications."""
    total = rows.base * (constants.T @ constants)
    for some, taken in rows.taken():
        scaled = taken * constants[some]
        total -= scaled.T @ scaled
    return np.asarray(total)


def common_moments(slabs: Iterable[MaskedSlab], params: MaskedParams) -> CommonMoments | None:
    """CommonMoments of some slabs, 3 n K^2 multiplications."""
    total: CommonMoments | None = None
    for slab in slabs:
        residual = residuals_of(slab, params)
        counted = slab.observed if slab.count is None else slab.observed * slab.count[:, None]
        part = CommonMoments(residual.T @ residual, (residual**2).T @ slab.observed, counted.T @ slab.observed)
        total = part if total is None else total + part
    return total


def shown_mcelroy_r2(problem: Incomplete, coefficients: np.ndarray, sigma: Sigma) -> float:
    """At coefficients (P,) and a Sigma in the user's units; NaN where no response varies. One pass, or none from
    pseudo-rows."""
    c = problem.whitened_coefficients(coefficients)
    params = problem.params_at(c, sigma.rescaled(1.0 / problem.whitened.y_scale))
    params = replace(params, constants=problem.constants)
    found: QuadraticMoments = problem.summed(quadratic_moments, params, "McElroy's R2")
    there = np.flatnonzero(found.precision.diagonal() > 0)
    along = found.along[there]
    total = found.total - float(along @ np.linalg.solve(found.precision[np.ix_(there, there)], along))
    return 1.0 - found.residual / total if total > ROUNDING * found.total else float("nan")


def shown_system_r2(
    problem: Incomplete, coefficients: np.ndarray, sigma: Sigma, residual: np.ndarray, r2: np.ndarray
) -> dict[str, float]:
    """The R2s of the system by their authors' names: `shown_mcelroy_r2`; Judge's, 1 - the squared residuals over the
    squares about the means, both of all that is observed; Dhrymes', the R2s of the equations weighted by those squares;
    Berndt's, which needs the determinant of products of complete rows, is NaN.

    residual : (K,) sums of squared residuals.  r2 : (K,) of the equations.
    """
    total = np.concatenate([squares_about_mean(part) for part in problem.group_rows])
    varies = total > 0
    nothing = float("nan")
    return {
        "mcelroy": shown_mcelroy_r2(problem, coefficients, sigma),
        "berndt": nothing,
        "judge": 1.0 - float(residual.sum() / total.sum()) if varies.any() else nothing,
        "dhrymes": float(r2[varies] @ total[varies] / total.sum()) if varies.any() else nothing,
    }


def shown_breusch_pagan(problem: Incomplete) -> HypothesisTest:
    """sum_{j<l} N_jl r_jl^2, r_jl the correlation about zero of OLS residuals over the N_jl rows that show both.

    Each equation is fitted to all rows that show it; chi2 with as many degrees of freedom as pairs are seen together.
    One pass, or none from pseudo-rows.  Raises ValueError for one equation, or one that its regressors fit exactly.
    Source: Shiba and Tsurumi (1988), section 2; of complete rows Breusch and Pagan (1980), 4.1.
    """
    equations, exact = problem.design.equations, problem.whitened.exact
    if len(equations) < 2:
        raise ValueError("breusch_pagan tests correlations between equations; this system has one equation.")
    if exact.any():
        raise ValueError(
            f"breusch_pagan needs residuals that vary; equation {equations[int(np.argmax(exact))]!r} is fitted exactly "
            "by its regressors. Fit the system without it."
        )
    apart = LowRank(np.zeros((len(equations), 0)), np.ones(len(equations)))
    params = problem.params_at(least_squares(problem), apart)
    found: CommonMoments = problem.summed(common_moments, params, "pairs")
    below = np.tril_indices(len(equations), -1)
    pairs, sizes = found.pairs[below], (found.squares * found.squares.T)[below]
    seen = (pairs > 0) & (sizes > 0)
    statistic = float(np.sum(pairs[seen] * found.cross[below][seen] ** 2 / sizes[seen]))
    return chi2_test("Breusch-Pagan LM test", DIAGONAL, statistic, int(seen.sum()))
