"""Factor scores: the common factors behind the errors of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lrgls_dask.prediction.fitted import Coefficients, residual_rows
from lrgls_dask.sigma.structures import Factored

__all__ = ["ScoreMethod", "Scoring", "score_rows", "score_weights"]

ScoreMethod = Literal["regression", "bartlett"]


@dataclass(frozen=True, eq=False)
class Scoring:
    """Coefficients, and the (K, k) weights that turn residuals into scores."""

    coefficients: Coefficients
    weights: np.ndarray


def score_weights(sigma: Any, method: ScoreMethod) -> np.ndarray:
    """(K, k) A such that the scores of a residual row r are r A.

    "regression": A = Sigma^-1 F = D^-1 F C^-1, the mean of the factors given r (Thomson 1939), shrunken towards 0.
    "bartlett": A = D^-1 F (F' D^-1 F)^-1, unbiased given the factors (Bartlett 1937).
    Raises ValueError where there are no factors, or where one has no loadings to be told by.
    """
    if not isinstance(sigma, Factored) or sigma.rank == 0:
        raise ValueError("the fit has no factors, so there are no scores. Fit with rank >= 1.")
    if method == "regression":
        return sigma.precision_loadings
    if method != "bartlett":
        raise ValueError(f"method must be 'regression' or 'bartlett'; got {method!r}.")
    deviations = np.sqrt(sigma.d)[:, None]
    Q, R = np.linalg.qr(sigma.F / deviations)
    size = np.abs(np.diagonal(R))
    if size.min() <= np.finfo(np.float64).eps * sigma.n_equations * size.max():
        raise ValueError(
            f"Bartlett scores need {sigma.rank} factors that differ, but factor {int(size.argmin()) + 1} has no "
            "loadings of its own. Fit with a smaller rank, or use method='regression'."
        )
    return np.asarray(np.linalg.solve(R, Q.T).T / deviations)


def score_rows(x: np.ndarray, y: np.ndarray | None, weights: np.ndarray | None, params: Scoring) -> np.ndarray:
    """(n, k) scores of sqrt(w_i) r_i, which has covariance Sigma whatever the weight; NaN where Y or X is."""
    scores = residual_rows(x, y, weights, params.coefficients) @ params.weights
    return scores if weights is None else scores * np.sqrt(weights)[:, None]
