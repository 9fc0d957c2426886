"""Rows of groups, and the system with a column of 0 and 1 for each, which absorbing their effects must equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask import Fit, LowRankGLS, System

REGRESSORS = ("x0", "x1", "x2")
TIGHT: dict[str, Any] = {"rel_tol": 1e-13, "max_sweeps": 3000}


@dataclass(frozen=True)
class Grouped:
    """Y (N, K), X (N, 3), a firm, a year and a kind of each row, and weights."""

    Y: np.ndarray
    X: np.ndarray
    firm: np.ndarray
    year: np.ndarray
    kind: np.ndarray
    weights: np.ndarray

    def labels(self, *names: str) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in names}

    def system(self, *names: str, **options: Any) -> System:
        return System.from_arrays(self.Y, self.X, absorb=self.labels(*names), **options)

    def with_dummies(self, *names: str, **options: Any) -> System:
        return System.from_arrays(self.Y, np.hstack([self.X, self.dummies(*names)]), **options)

    def dummies(self, *names: str) -> np.ndarray:
        """Columns of 0 and 1 that are independent, found one after the other."""
        made = [pd.get_dummies(getattr(self, name)).to_numpy(dtype=float) for name in names]
        kept = made[0]
        for more in made[1:]:
            for column in more.T:
                wider = np.column_stack([kept, column])
                kept = wider if np.linalg.matrix_rank(wider) > kept.shape[1] else kept
        return kept


def grouped(n_obs: int = 240, n_equations: int = 6, seed: int = 0, n_firms: int = 12) -> Grouped:
    rng = np.random.default_rng(seed)
    firm, year, kind = rng.integers(0, n_firms, n_obs), 2000 + rng.integers(0, 6, n_obs), rng.integers(0, 4, n_obs)
    firm[:2], firm[2:] = [n_firms, n_firms + 1], firm[2:]  # two of one row each
    effects = rng.normal(size=(n_firms + 2, n_equations)) * 3
    X = rng.normal(size=(n_obs, 3)) + rng.normal(size=(n_firms + 2, 3))[firm] * 2 + 5
    errors = rng.normal(size=(n_obs, 1)) @ rng.uniform(0.7, 1.5, (1, n_equations)) + rng.normal(
        size=(n_obs, n_equations)
    )
    Y = X @ rng.normal(size=(3, n_equations)) + effects[firm] + 0.3 * (year - 2003)[:, None] + errors
    return Grouped(Y, X, np.array([f"f{i:03d}" for i in firm]), year, kind, rng.uniform(0.3, 3.0, n_obs))


def fitted(system: Any, **options: Any) -> Fit:
    return LowRankGLS(**({"rank": 1, **TIGHT} | options)).fit(system).result_


def of_regressors(fit: Fit, values: Any) -> np.ndarray:
    """Those of a fit with dummies that the fit without them has too."""
    return np.asarray(values)[np.isin(fit.params["regressor"].values, REGRESSORS)]


def check_same_fit(fit: Fit, dummies: Fit, *, rtol: float = 1e-9) -> None:
    """Everything that is no coefficient of a dummy."""
    for name in ("params", "std_errors", "pvalues"):
        wanted = of_regressors(dummies, getattr(dummies, name))
        np.testing.assert_allclose(getattr(fit, name).values, wanted, rtol=rtol, atol=1e-12, err_msg=name)
    for name in ("r2", "adj_r2"):
        np.testing.assert_allclose(getattr(fit, name), getattr(dummies, name), rtol=rtol, err_msg=name)
    np.testing.assert_allclose(fit.sigma(), dummies.sigma(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.loglik, dummies.loglik, rtol=rtol)
    assert (fit.n_obs, fit.df_model, fit.df_resid) == (dummies.n_obs, dummies.df_model, dummies.df_resid)
    assert fit.n_parameters == dummies.n_parameters
