"""Factor scores: the common factors behind the errors of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrgls_dask.prediction.fitted import Coefficients, residual_rows

__all__ = ["FactorScoreMethod", "Scoring", "ShownScoring", "factor_score_rows"]

FactorScoreMethod = Literal["regression", "bartlett"]
TELLS = 1e-12  # the least eigenvalue of G, relative to the largest, that is no rounding


@dataclass(frozen=True, eq=False)
class Scoring:
    """Coefficients, and the (K, k) weights that turn residuals into scores.

    shown : what scores a row by the responses it shows, where it misses some; None for NaN.
    """

    coefficients: Coefficients
    weights: np.ndarray
    shown: ShownScoring | None = None


@dataclass(frozen=True, eq=False)
class ShownScoring:
    """Scores by what rows show, G_o = F_o' D_o^-1 F_o of a row: (I + G_o)^-1 F_o' D_o^-1 r_o, the mean of the factors
    given r_o, or by `bartlett` G_o^-1 F_o' D_o^-1 r_o, NaN where what it shows does not tell the factors apart.

    F : (K, k).  d : (K,).
    """

    F: np.ndarray
    d: np.ndarray
    bartlett: bool

    def scores(self, residual: np.ndarray) -> np.ndarray:
        """(n, k) of residuals (n, K), NaN where missing; O(K k^2) a row."""
        shown, k, scaled = ~np.isnan(residual), self.F.shape[1], self.F / self.d[:, None]
        right = np.where(shown, residual, 0.0) @ scaled
        products = (scaled[:, :, None] * self.F[:, None, :]).reshape(-1, k * k)
        G = (shown.astype(np.float64) @ products).reshape(-1, k, k)
        if not self.bartlett:
            return np.asarray(np.linalg.solve(G + np.eye(k), right[:, :, None])[:, :, 0])
        values = np.linalg.eigvalsh(G)
        told = values[:, 0] > TELLS * values[:, -1]
        out = np.full(right.shape, np.nan)
        out[told] = np.linalg.solve(G[told], right[told][:, :, None])[:, :, 0]
        return out


def factor_score_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Scoring) -> np.ndarray:
    """(n, k) scores of W_i^1/2 r_i, which has covariance Sigma whatever the weights; where Y or X is NaN, or a cell has
    weight zero, of the others if `params.shown` says how, else NaN."""
    residual = residual_rows(x, y, weights, params.coefficients)
    if weights is not None:
        residual *= np.sqrt(weights)
        if weights.shape[1] > 1:
            np.copyto(residual, np.nan, where=weights == 0)
    scores = np.asarray(residual @ params.weights)
    if params.shown is not None:
        rows = np.isnan(residual).any(axis=1)
        if rows.any():
            scores[rows] = params.shown.scores(residual[rows])
    return scores
