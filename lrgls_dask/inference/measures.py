"""Measures of fit: R2 of each equation, adjusted, and those of the system, from rows in memory: no read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.compressed import Compressed, residual_rows
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.whiten import GroupRows

__all__ = ["SumsOfSquares", "mcelroy_r2", "residual_covariance", "sums_of_squares", "system_r2"]

LEVEL = 1e-6  # a combination of columns without variation is a constant if this much of its level is left


@dataclass(frozen=True, eq=False)
class SumsOfSquares:
    """What R2 is made of, with row weights, in the user's units squared.

    residual : (K,) of the residuals.  total : (K,) of Y about its weighted mean where the equation has a constant,
    about zero elsewhere.  constant : (K,) whether some combination of the equation's columns that is free is constant.
    """

    residual: np.ndarray
    total: np.ndarray
    constant: np.ndarray

    @property
    def r2(self) -> np.ndarray:
        """(K,) 1 - residual / total; NaN where a response does not vary."""
        return 1.0 - self.residual / np.where(self.total > 0, self.total, np.nan)

    def adj_r2(self, n_obs: int, free: np.ndarray) -> np.ndarray:
        """(K,) with sums of squares over their degrees of freedom N - p_j and N - 1, or N without a constant.

        free : (K,) p_j, coefficients that are free.
        """
        return 1.0 - (1.0 - self.r2) * (n_obs - self.constant) / np.maximum(n_obs - free, 1)


def sums_of_squares(
    parts: tuple[GroupRows, ...], coefficients: np.ndarray, resolution: float, restrictions: Restrictions | None
) -> SumsOfSquares:
    """The sums of squares of every equation at coefficients (P,) in the user's units.

    parts : what each design's equations know of the data.  resolution : the least singular value, of unit columns,
    that their rows tell from zero.  Costs O(r p^2) for each design and O(r p) for each equation.
    """
    n_equations = sum(len(part.group.equations) for part in parts)
    residual, total = np.empty(n_equations), np.empty(n_equations)
    constant = np.zeros(n_equations, dtype=bool)
    for part in parts:
        mine = part.group.equations
        left = part.y - part.x @ coefficients[part.group.coefficients]
        residual[mine] = np.sum(left**2, axis=0) + part.beyond
        constant[mine] = _constants(part, resolution, restrictions)
        about_zero, about_mean = np.sum(part.y**2, axis=0), np.sum(part.y[1:] ** 2, axis=0)
        total[mine] = np.where(constant[mine], about_mean, about_zero) + part.beyond
    return SumsOfSquares(residual, total, constant)


def _constants(part: GroupRows, resolution: float, restrictions: Restrictions | None) -> np.ndarray:
    """(m,) whether each equation of a design has a constant among what restrictions leave free."""
    places = part.group.coefficients.T
    found = np.full(len(places), has_constant(part.x, resolution))
    if restrictions is not None and found[0]:
        for i in np.flatnonzero([bool(np.any(restrictions.matrix[:, mine])) for mine in places]):
            mine = slice(int(places[i][0]), int(places[i][-1]) + 1)
            found[i] = has_constant(part.x @ restrictions.open_to(mine), resolution)
    return found


def has_constant(x: np.ndarray, resolution: float) -> bool:
    """Whether a combination of the columns is the same in every row: an intercept, or dummies that add up to one.

    x : (r, p), the first row sqrt(W) * mean, the rest a root of the centred cross-product.
    """
    variation = np.linalg.norm(x[1:], axis=0)
    varies = variation > 0
    if np.any(x[0, ~varies] != 0):
        return True
    p = int(varies.sum())
    if p == 0:
        return False
    scaled = np.zeros((max(p, len(x) - 1), p))
    scaled[: len(x) - 1] = x[1:, varies] / variation[varies]
    _, s, vt = np.linalg.svd(scaled, full_matrices=False)
    still = vt[s <= resolution] / variation[varies]
    level, size = still @ x[0, varies], np.abs(still) @ np.abs(x[0, varies])
    return bool(np.any(np.abs(level) > LEVEL * size))


def residual_covariance(system: Compressed, coefficients: np.ndarray) -> np.ndarray:
    """(K, K) S = R'R / N in the user's units."""
    residual = residual_rows(system, coefficients)
    covariance: np.ndarray = residual.T @ residual / system.n_obs
    return covariance


def mcelroy_r2(system: Compressed, coefficients: np.ndarray, sigma: Sigma | np.ndarray) -> float:
    """1 - tr(Sigma^-1 R'R) / tr(Sigma^-1 T), T the cross-product of Y about its means; NaN where no response varies.

    sigma : the error covariance, or a dense one (K, K). With an intercept in every equation between 0 and 1 for
    generalised least squares. Costs O((q + K) K k).  Source: McElroy (1977), eq. 2.13.
    """
    residual = residual_rows(system, coefficients)
    total = system.root[:, system.design.n_regressors :]
    if isinstance(sigma, np.ndarray):
        precision = np.linalg.inv(sigma)
        parts = [float(np.sum((rows @ precision) * rows)) for rows in (residual, total)]
    else:
        parts = [float(np.sum(sigma.solve_rows(rows) * rows)) for rows in (residual, total)]
    return 1.0 - parts[0] / parts[1] if parts[1] > 0 else float("nan")


def system_r2(
    system: Compressed, coefficients: np.ndarray, sigma: Sigma | np.ndarray, r2: np.ndarray, degrees: np.ndarray
) -> dict[str, float]:
    """The R2s of the system by the names of their authors, of responses T about their means; NaN where undefined.

    judge : 1 - sum of squared residuals / tr T, every equation in its own units.  dhrymes : the R2s of the equations,
    weighted by their shares of tr T.  berndt : 1 - |Sigma| / |T / N|.  mcelroy : see `mcelroy_r2`.
    sigma : the error covariance, or a dense one (K, K).  r2 : (K,) of the equations.  degrees : (K,) by which T / N is
    multiplied from both sides, where Sigma is corrected for degrees of freedom in the same way.
    Costs O((q + K) K^2).  Source: Judge et al. (1985), section 12.1; Dhrymes (1974), p. 240; Berndt (1991), p. 468.
    """
    residual = residual_rows(system, coefficients)
    total = system.root[:, system.design.n_regressors :]
    sizes = np.sum(total**2, axis=0)
    varies = sizes > 0
    nothing = float("nan")
    berndt = nothing
    if varies.all() and len(total) >= len(sizes):
        units = np.sqrt(sizes / system.n_obs)  # no determinant under- or overflows by the units of the data
        scaled = total / np.sqrt(sizes)
        sign, of_total = np.linalg.slogdet(scaled.T @ scaled)
        if isinstance(sigma, np.ndarray):
            of_errors = float(np.linalg.slogdet(sigma / np.multiply.outer(units, units))[1])
        else:
            of_errors = sigma.rescaled(1.0 / units).logdet
        if sign > 0:
            berndt = 1.0 - float(np.exp(of_errors - of_total - 2.0 * np.log(degrees).sum()))
    return {
        "mcelroy": mcelroy_r2(system, coefficients, sigma),
        "berndt": berndt,
        "judge": 1.0 - float(np.sum(residual**2) / sizes.sum()) if varies.any() else nothing,
        "dhrymes": float(r2[varies] @ sizes[varies] / sizes.sum()) if varies.any() else nothing,
    }
