"""Factor scores: the common factors behind the errors of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrgls_dask.prediction.fitted import Coefficients, residual_rows

__all__ = ["FactorScoreMethod", "Scoring", "factor_score_rows"]

FactorScoreMethod = Literal["regression", "bartlett"]


@dataclass(frozen=True, eq=False)
class Scoring:
    """Coefficients, and the (K, k) weights that turn residuals into scores."""

    coefficients: Coefficients
    weights: np.ndarray


def factor_score_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Scoring) -> np.ndarray:
    """(n, k) scores of W_i^1/2 r_i, which has covariance Sigma whatever the weights; NaN where Y or X is, or where some
    cells of a row have weight zero."""
    residual = residual_rows(x, y, weights, params.coefficients)
    if weights is not None:
        residual *= np.sqrt(weights)
        if weights.shape[1] > 1:
            np.copyto(residual, np.nan, where=weights == 0)
    return np.asarray(residual @ params.weights)
