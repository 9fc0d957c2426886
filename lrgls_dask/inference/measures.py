"""Measures of fit: R2 of each equation, adjusted, and those of the system, from rows in memory: no read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrgls_dask.compression.compressed import Compressed, residual_rows
from lrgls_dask.design.absorbed import Absorbed
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.solve.whiten import GroupRows, fitted_exactly, group_rows, resolution_of

__all__ = [
    "SumsOfSquares",
    "mcelroy_r2",
    "mcelroy_r2_of_residuals",
    "squares_about_mean",
    "sums_of_squares",
    "system_r2",
]

ROUNDING, VARIES = 1e-8, 1e-13  # residuals and spread, as a part of the level, that are no more than rounding
LEVEL = 1e-6  # a combination of columns without variation is a constant if this much of its level is left


@dataclass(frozen=True, eq=False)
class SumsOfSquares:
    """What R2 is made of, with weights, in the user's units squared.

    residual : (K,) of the residuals.  total : (K,) of Y about its weighted mean where the equation has a constant,
    about zero elsewhere.  constant : (K,) whether some combination of the equation's columns that is free is constant.
    """

    residual: np.ndarray
    total: np.ndarray
    constant: np.ndarray

    def with_effects(self, absorbed: Absorbed | None) -> SumsOfSquares:
        """The same of Y about its mean, of rows less the effects that were absorbed."""
        if absorbed is None:
            return self
        explained = absorbed.explained[-len(self.total) :]
        return SumsOfSquares(self.residual, self.total + explained, np.ones_like(self.constant))

    @property
    def r2(self) -> np.ndarray:
        """(K,) 1 - residual / total; NaN where a response does not vary."""
        return 1.0 - self.residual / np.where(self.total > 0, self.total, np.nan)

    def adj_r2(self, n_obs: int | np.ndarray, free: np.ndarray) -> np.ndarray:
        """(K,) with sums of squares over their degrees of freedom N - p_j and N - 1, or N without a constant.

        n_obs : N, or (K,) those of each equation.  free : (K,) p_j, coefficients that are free.
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
        about_zero = np.sum(part.y**2, axis=0) + part.beyond
        total[mine] = np.where(constant[mine], squares_about_mean(part), about_zero)
    return SumsOfSquares(residual, total, constant)


def squares_about_mean(part: GroupRows) -> np.ndarray:
    """(m,) weighted squares of the responses about their weighted means."""
    return np.asarray(np.sum(_less_mean(part) ** 2, axis=0) + part.beyond)


def _less_mean(part: GroupRows) -> np.ndarray:
    """(r, m) Y less its weighted mean."""
    if part.level is None:
        return part.y[1:]
    squares = part.level @ part.level
    return part.y - np.outer(part.level, part.level @ part.y / squares if squares > 0 else np.zeros(part.y.shape[1]))


def _constants(part: GroupRows, resolution: float, restrictions: Restrictions | None) -> np.ndarray:
    """(m,) whether each equation of a design has a constant among what restrictions leave free."""
    places = part.group.coefficients.T
    found = np.full(len(places), has_constant(part.x, resolution, part.level))
    if restrictions is not None and found[0]:
        for i in np.flatnonzero([bool(np.any(restrictions.matrix[:, mine])) for mine in places]):
            mine = slice(int(places[i][0]), int(places[i][-1]) + 1)
            found[i] = has_constant(part.x @ restrictions.open_to(mine), resolution, part.level)
    return found


def has_constant(x: np.ndarray, resolution: float, level: np.ndarray | None) -> bool:
    """Whether a combination of the columns is the same in every row: an intercept, or dummies that add up to one.

    x : (r, p), the first row sqrt(W) * mean, the rest a root of the centred cross-product.  level : (r,) what a column
    of ones is there, None for the first row.
    """
    if level is not None:
        if not level.any() or x.shape[1] == 0:
            return False
        norms = np.linalg.norm(x, axis=0)
        unit = x / np.where(norms > 0, norms, 1.0)
        left = level - unit @ np.linalg.lstsq(unit, level, rcond=None)[0]
        return bool(left @ left <= LEVEL * (level @ level))
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


def mcelroy_r2(system: Compressed, coefficients: np.ndarray, sigma: Sigma) -> float:
    """1 - tr(Sigma^-1 R'R) / tr(Sigma^-1 T), T the cross-product of Y about its means; NaN where no response varies.

    Where cells have weights the means are those of generalised least squares, as linearmodels has them. With an
    intercept in every equation between 0 and 1 for generalised least squares. Costs O((q + K) K k), and O(K^3) where
    cells have weights.  Source: McElroy (1977), eq. 2.13.
    """
    residual = residual_rows(system, coefficients)
    total = _about_means(system, None if system.design.own is None else sigma.precision())
    parts = [float(np.sum(sigma.solve_rows(rows) * rows)) for rows in (residual, total)]
    return 1.0 - parts[0] / parts[1] if parts[1] > 0 else float("nan")


def mcelroy_r2_of_residuals(system: Compressed, coefficients: np.ndarray) -> float:
    """McElroy's R2 with Sigma = R'R / N, which is 1 - K / tr((R'R)^-1 T).  Costs O((q + K) K^2).

    A response that does not vary, and has no residuals, says nothing and is left out. One that varies and is fitted
    exactly makes it 1, the limit. NaN where nothing is left, or residuals are singular for another reason.
    """
    residual = residual_rows(system, coefficients)
    weighted_cells = system.design.own is not None
    total = _about_means(system, np.eye(residual.shape[1]) if weighted_cells else None)
    sizes, spread = np.linalg.norm(residual, axis=0), np.linalg.norm(total, axis=0)
    level = np.linalg.norm(system.stacked()[:, system.design.n_regressors :], axis=0)
    exact = fitted_exactly(system) & (sizes <= ROUNDING * level)
    if np.any(exact & (spread > VARIES * level)):
        return 1.0
    if exact.all():
        return float("nan")
    kept = ~exact
    _, s, vt = np.linalg.svd(residual[:, kept] / sizes[kept], full_matrices=False)
    if len(s) < kept.sum() or s[-1] <= resolution_of(system):
        return float("nan")
    root = vt.T / s / sizes[kept][:, None]
    if weighted_cells:
        precision = np.eye(len(kept))
        precision[np.ix_(kept, kept)] = root @ root.T
        total = _about_means(system, precision)
    size = np.linalg.norm(total[:, kept] @ root) ** 2
    return float(1.0 - kept.sum() / size) if size > 0 else float("nan")


def system_r2(
    system: Compressed, coefficients: np.ndarray, sigma: Sigma | None, r2: np.ndarray, degrees: np.ndarray
) -> dict[str, float]:
    """The R2s of the system by the names of their authors, of responses T about their means; NaN where undefined.

    judge : 1 - sum of squared residuals / tr T, every equation in its own units.  dhrymes : the R2s of the equations,
    weighted by their shares of tr T.  berndt : 1 - |Sigma| / |T / N|.  mcelroy : see `mcelroy_r2`.
    sigma : the error covariance, None for R'R / N.  r2 : (K,) of the equations.  degrees : (K,) by which T / N is
    multiplied from both sides, where Sigma is corrected for degrees of freedom in the same way.
    Costs O((q + K) K^2).  Source: Judge et al. (1985), section 12.1; Dhrymes (1974), p. 240; Berndt (1991), p. 468.
    """
    residual = residual_rows(system, coefficients)
    total = _about_means(system, None if system.design.own is None else np.eye(len(r2)))
    sizes = np.sum(total**2, axis=0)
    varies = sizes > 0
    nothing = float("nan")
    berndt = nothing
    if varies.all() and len(total) >= len(sizes):
        scaled = total / np.sqrt(sizes)  # no determinant under- or overflows by the units of the data
        sign, of_total = np.linalg.slogdet(scaled.T @ scaled)
        if sigma is None:
            left = residual / np.sqrt(sizes)
            of_errors = float(np.linalg.slogdet(left.T @ left)[1])
        else:
            of_errors = sigma.rescaled(np.sqrt(system.n_obs / sizes)).logdet
        if sign > 0:
            berndt = 1.0 - float(np.exp(of_errors - of_total - 2.0 * np.log(degrees).sum()))
    mcelroy = (
        mcelroy_r2_of_residuals(system, coefficients) if sigma is None else mcelroy_r2(system, coefficients, sigma)
    )
    return {
        "mcelroy": mcelroy,
        "berndt": berndt,
        "judge": 1.0 - float(np.sum(residual**2) / sizes.sum()) if varies.any() else nothing,
        "dhrymes": float(r2[varies] @ sizes[varies] / sizes.sum()) if varies.any() else nothing,
    }


def _about_means(system: Compressed, precision: np.ndarray | None) -> np.ndarray:
    """(r, K) rows that stand for Y about its means, those of generalised least squares at a precision (K, K)."""
    if precision is None:
        rows, absorbed = system.root[:, system.design.n_regressors :], system.design.absorbed
        return rows if absorbed is None else np.vstack([rows, absorbed.between])
    return _less_gls_means(system, precision)


def _less_gls_means(system: Compressed, precision: np.ndarray) -> np.ndarray:
    """(r + 1, K) rows that stand for Y less a constant for each equation, by generalised least squares.

    O((q + K) K^2 + K^3).
    """
    rows = system.stacked()
    y = rows[:, system.design.n_regressors :].copy()
    levels = np.zeros(y.shape)
    for part in group_rows(system):
        if part.level is not None:
            levels[: len(part.level), part.group.equations] = part.level[:, None]
    known = np.flatnonzero(levels.any(axis=0))
    levels = levels[:, known]
    normal = precision[np.ix_(known, known)] * (levels.T @ levels)
    right = np.einsum("ij,ij->j", levels, y @ precision[:, known])
    y[:, known] -= levels * np.linalg.solve(normal, right)
    return np.asarray(y)
