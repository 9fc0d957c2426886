"""Sandwich covariances by explicit sums over all pairs of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrgls_dask import Fit
from support.systems import Data

GROUPS = np.random.default_rng(3).permutation(np.arange(240) % 60)  # scattered over all rows
OPTIONS: dict[str, dict[str, Any]] = {
    "robust": {},
    "cluster": {"groups": GROUPS},
    "hac": {"bandwidth": 7},
}
SUMMED: dict[str, dict[str, Any]] = {  # the same, as `meat` takes them
    "robust": {},
    "cluster": {"groups": GROUPS},
    "hac": {"weights": 1 - np.arange(8) / 8},
}


def scores(made: Fit, data: Data) -> np.ndarray:
    """(N, P) w_i x_ic (Sigma^-1 r_i)_j, with the explicit inverse."""
    dense = data.dense()
    weighted = (dense.w[:, None] * dense.residuals(made.params.values)) @ np.linalg.inv(made.sigma().values)
    return np.concatenate([X * weighted[:, [j]] for j, X in enumerate(data.Xs)], axis=1)


def meat(s: np.ndarray, groups: np.ndarray | None = None, weights: Any = (1.0,)) -> np.ndarray:
    """Sum over all pairs of rows, each with its weight, from the (N, N) matrix of weights."""
    n = len(s)
    if groups is not None:
        return s.T @ (groups[:, None] == groups[None, :]) @ s
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    padded = np.zeros(n)
    padded[: len(weights)] = weights
    return s.T @ padded[lag] @ s


def off_by(found: Any, wanted: np.ndarray) -> float:
    """The largest difference of two covariances, in units of standard errors."""
    size = np.sqrt(np.diag(wanted))
    return float(np.abs((np.asarray(found) - wanted) / np.outer(size, size)).max())
