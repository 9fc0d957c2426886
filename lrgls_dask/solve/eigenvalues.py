"""How many factors, by the eigenvalues of residuals alone: parallel analysis, and ratios of neighbours.

S (K, K) is the covariance of residuals in standard units, of n degrees of freedom, with eigenvalues l_1 >= l_2 >= ...

"parallel": a factor counts while its eigenvalue is above what noise alone would have (Horn 1965; Buja and Eyuboglu
1992). Instead of data with their columns shuffled, what noise has is computed (Dobriban and Owen 2019): after factors
1..k-1 are taken out, what is left, S - sum l_i v_i v_i', has variances s_j, those of t_j = s_j / (1 - sum v_ij^2) in
the dimensions that are left, and noise with variances t_j has its largest eigenvalue at the upper edge of its spectrum
(Marchenko and Pastur 1967),

    z(x) = 1 / x + (K / n) mean_j t_j / (1 - t_j x),      least over 0 < x < 1 / max t,

K - k + 1 and n - k + 1 in the place of K and n, and varies about it by (z''(x) / 2)^(1/3) n^(-2/3) times Tracy and
Widom's distribution (Johnstone 2001; El Karoui 2007): the threshold is its 95 percent quantile, as is usual where noise
is drawn (Glorfeld 1995).

"eigenvalue-ratio": the k for which ER(k) = l_k / l_(k+1) is largest (Ahn and Horenstein 2013), l_0 = V(0) / log m for
none, m = min(K, n), V(k) = sum of l_j over j > k. Beside it GR(k) = log(1 + l_k / V(k)) / log(1 + l_(k+1) / V(k+1)),
their growth ratio, which one factor far above the others does not mislead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from lrgls_dask.sigma.of_rows import Moments
from lrgls_dask.sigma.profile import leading

__all__ = ["EigenvalueWay", "by_eigenvalues"]

EigenvalueWay = Literal["parallel", "eigenvalue-ratio"]

LEAST_SHARE = 0.1  # of an equation that must be left for its variance there to say what all of it would be
ZERO = 1e-10  # of the largest eigenvalue: one that is zero but for rounding, as all beyond the number of rows are
TRACY_WIDOM = 0.9793  # the 95 percent quantile of its distribution for real matrices (Johnstone 2001, table 2)


def by_eigenvalues(
    S: Moments, n: float, ranks: Sequence[int], way: EigenvalueWay
) -> tuple[int, list[dict[str, float]]]:
    """The place of the number of factors among `ranks`, ascending, and a row for each of these.

    O(K^2) a factor, of fewer rows than equations O(K n).
    """
    most = min(max(ranks) + 2, S.shape[0])
    values, vectors = leading(S, most)
    if way == "parallel":
        return _parallel(S.diagonal(), values, vectors, n, ranks)
    return _by_ratios(float(np.sum(S.diagonal())), values, min(S.shape[0], n), ranks)


def _parallel(
    diagonal: np.ndarray, values: np.ndarray, vectors: np.ndarray, n: float, ranks: Sequence[int]
) -> tuple[int, list[dict[str, float]]]:
    left = diagonal - np.cumsum(values * vectors**2, axis=1).T  # (most, K) variances without the first factors
    share = 1.0 - np.cumsum(vectors**2, axis=1).T
    left = np.vstack([diagonal, np.maximum(left, 0.0) / np.maximum(share, LEAST_SHARE)])
    thresholds = np.array([_largest_of_noise(left[i], len(diagonal) - i, n - i) for i in range(max(ranks))])
    above = values[: len(thresholds)] > thresholds
    count = int(np.argmin(np.append(above, False)))
    rows = [
        {
            "rank": rank,
            "eigenvalue": float(values[rank - 1]) if rank else np.nan,
            "threshold": float(thresholds[rank - 1]) if rank else np.nan,
        }
        for rank in ranks
    ]
    return max(int(np.searchsorted(ranks, count, side="right")) - 1, 0), rows


def _largest_of_noise(variances: np.ndarray, n_dims: int, n: float) -> float:
    """What the largest eigenvalue of the covariance of n rows of noise stays below in 95 of 100 cases.

    Infinite where there are no rows or no variances.
    """
    t = variances[variances > 0.0]
    if n <= 0 or n_dims <= 0 or not len(t):
        return np.inf
    gamma, top = n_dims / n, 1.0 / float(t.max())

    def slope(x: float) -> float:
        return float(gamma * np.mean((t * x / (1.0 - t * x)) ** 2) - 1.0)

    x = brentq(slope, 0.0, top * (1.0 - 1e-12), xtol=1e-15 * top, rtol=1e-14)
    edge = 1.0 / x + gamma * float(np.mean(t / (1.0 - t * x)))
    bend = 2.0 / x**3 + 2.0 * gamma * float(np.mean((t / (1.0 - t * x)) ** 3))
    return float(edge + TRACY_WIDOM * (0.5 * bend) ** (1 / 3) * n ** (-2 / 3))


def _by_ratios(trace: float, values: np.ndarray, m: float, ranks: Sequence[int]) -> tuple[int, list[dict[str, float]]]:
    mock = trace / np.log(max(m, 3.0))
    extended = np.concatenate([[mock], np.maximum(values, 0.0)])
    beyond = trace - np.concatenate([[0.0], np.cumsum(values)])  # V(0), V(1), ...
    least = ZERO * values[0]  # a ratio to what is zero but for rounding says nothing
    known = values > least
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(known, extended[:-1] / extended[1:], np.nan)
        growth = np.log1p(extended / np.maximum(beyond, 0.0))
        growth_ratio = np.where(known & (beyond[1:] > least), growth[:-1] / growth[1:], np.nan)
    rows = [
        {
            "rank": rank,
            "eigenvalue": float(values[rank - 1]) if rank else np.nan,
            "eigenvalue_ratio": float(ratio[rank]),
            "growth_ratio": float(growth_ratio[rank]),
        }
        for rank in ranks
    ]
    return int(np.argmax(np.nan_to_num(ratio[list(ranks)], nan=-1.0))), rows
