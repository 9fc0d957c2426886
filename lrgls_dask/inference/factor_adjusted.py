"""Statistics of many equations without what their common factors happened to put into them.

With regressors X that the equations share, errors Z f_j + e_j, and one combination a of the coefficients of each,

    a'(b^_j - b_j) = f_j'w + u_j,     w = Z'X (X'X)^-1 a,     u_j ~ N(0, v d_j),     v = a'(X'X)^-1 a:

the same w in every equation, which therefore err together, and u_j apart. As nearly all hypotheses b_j = r are true,
w is seen across equations: by the robust regression of t_j / o_j on l_j / o_j, t_j = (a'b^_j - r) / std_error_j, l_j
the loadings f_j and o_j the standard deviation of u_j in units of the standard error. What is left,

    (t_j - l_j'w^) / (o_j sqrt(1 - h_j)),     h_j the leverage of the equation in that regression,

is N(0, 1) and independent between equations where the hypothesis is true, and where it is not larger than t_j by
sqrt(1 + f_j'f_j / d_j). Where regressors are not shared, or the covariance is not the classical one, l are the leading
principal components of the correlations of the t_j and o_j^2 what these leave.

As many degrees of freedom as there are factors go into own variances, which are enlarged for that.
The regression is Huber's, with scale known, from where Tukey's biweight goes on: that one gives no weight to equations
whose hypothesis is far from true.

Source: Fan, Ke, Sun and Zhou (2019), FarmTest, section 2, for the statistic; Fan, Han and Gu (2012), section 3, for
principal factors of a known covariance and w by robust regression; Leek and Storey (2008) and Friguet, Kloareg and
Causeur (2009) for dependence as a low-dimensional kernel; Huber (1981), section 7.8; Beaton and Tukey (1974).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from lrgls_dask.inference.joint_deviations import common_and_own
from lrgls_dask.inference.structured import CovOfCombinations
from lrgls_dask.sigma.leading import leading_pairs

__all__ = ["FactorsOfStatistics", "realised"]

HUBER, BIWEIGHT = 1.345, 4.685  # at which 95 percent of efficiency is kept with normal errors
ROUNDS, SETTLED = 100, 1e-10
DENSE_UP_TO = 500  # statistics, whose correlations are formed
RIDGE = 1e-12  # of the sum of squares of what is regressed on
LEAST = 1e-6  # of its variance, what a statistic must have of its own


@dataclass(frozen=True, eq=False)
class FactorsOfStatistics:
    """Correlations loadings loadings' + diag(own) of m statistics.  loadings : (m, k).  own : (m,) variances o_j^2."""

    loadings: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, among: CovOfCombinations, rank: int) -> FactorsOfStatistics:
        """Of the covariance of the estimates and k = rank factors of their errors.  O(m k^2) where they are its own
        part of low rank, else some tens of products with it."""
        scale = np.sqrt(among.variances)
        common, own = common_and_own(among, scale, np.arange(len(scale) + 1))
        if own is not None and common.shape[1] <= rank:
            return cls(common, own.diagonal())
        apart = np.zeros(len(scale)) if own is None else own.diagonal()
        values, vectors = _leading(common, apart, min(rank, len(scale) - 1))
        loadings = vectors * np.sqrt(np.maximum(values, 0.0))
        return cls(loadings, 1.0 - np.sum(loadings**2, axis=1))

    @property
    def n_factors(self) -> int:
        """k."""
        return int(self.loadings.shape[1])

    @property
    def bare(self) -> np.ndarray:
        """(m,) statistics that factors explain all but entirely, so that nothing of their own is left to test."""
        return np.asarray(self.own < LEAST)


def realised(statistics: np.ndarray, found: FactorsOfStatistics, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) l_j'w^ and (m,) what is left of statistics t (m,) over its standard deviation.

    own : (m,) o_j, in which degrees of freedom are counted.
    """
    x, y = found.loadings / own[:, None], statistics / own
    w = _robust(x, y, np.zeros(x.shape[1]), _huber)
    w = _robust(x, y, w, _biweight)
    weight = _biweight(y - x @ w)
    solved = np.linalg.solve(_gram(x, weight), x.T)
    leverage = weight * np.einsum("jk,kj->j", x, solved)
    common = found.loadings @ w
    return common, (y - x @ w) / np.sqrt(1.0 - np.minimum(leverage, 1.0 - LEAST))


def _huber(residual: np.ndarray) -> np.ndarray:
    return np.asarray(HUBER / np.maximum(np.abs(residual), HUBER))


def _biweight(residual: np.ndarray) -> np.ndarray:
    inside = np.minimum(np.abs(residual) / BIWEIGHT, 1.0)
    return np.asarray((1.0 - inside**2) ** 2)


def _robust(x: np.ndarray, y: np.ndarray, w: np.ndarray, weights: Callable[..., np.ndarray]) -> np.ndarray:
    """Iteratively reweighted least squares from w (k,), at a known scale of one."""
    for _ in range(ROUNDS):
        weight = weights(y - x @ w)
        before, w = w, np.linalg.solve(_gram(x, weight), x.T @ (weight * y))
        if np.linalg.norm(w - before) <= SETTLED * max(1.0, float(np.linalg.norm(w))):
            break
    return w


def _gram(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x'diag(weight) x, kept from being singular where hardly any equation has weight."""
    return np.asarray(x.T @ (weight[:, None] * x) + RIDGE * float(np.sum(x**2)) * np.eye(x.shape[1]))


def _leading(common: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of common common' + diag(own), and their vectors (m, k)."""
    m = len(own)
    if m <= DENSE_UP_TO:
        return leading_pairs(common @ common.T + np.diag(own), k)
    product = LinearOperator((m, m), lambda b: common @ (common.T @ b.ravel()) + own * b.ravel(), dtype=float)
    values, vectors = eigsh(product, k, which="LA", v0=np.ones(m))
    return values[::-1], vectors[:, ::-1]
