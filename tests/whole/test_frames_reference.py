"""Long frames as other packages ship them, fitted by a formula, against linearmodels and dense computations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

from lrgls_dask import Fit, LowRankGLS, System
from support.frames import grunfeld, munnell

GRUNFELD = grunfeld()
GRUNFELD = GRUNFELD[
    GRUNFELD["firm"].isin(["General Motors", "US Steel", "General Electric", "Chrysler", "Westinghouse"])
].assign(war=lambda frame: np.where(frame["year"].between(1941, 1945), "war", "peace"))
MUNNELL = munnell()
PRODUCTION = "np.log(GSP) ~ np.log(PC) + np.log(HWY) + np.log(WATER) + np.log(UTIL) + np.log(EMP) + UNEMP"
HOW: dict[str, dict[str, Any]] = {
    "ols": {"rank": 0, "algorithm": "ols"},
    "gls": {"covariance": "full", "algorithm": "fgls"},
    "ml": {"covariance": "full", "rel_tol": 1e-14, "max_sweeps": 3000},
}


def by_sur(frame: pd.DataFrame, formula: str, equation: str, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and standard errors by linearmodels, from formulaic's matrices of each equation."""
    import formulaic
    from linearmodels.system import SUR

    equations = {}
    for name, mine in frame.groupby(equation):
        made = formulaic.model_matrix(formula, mine.reset_index(drop=True), na_action="ignore")
        equations[str(name)] = {"dependent": pd.DataFrame(made.lhs), "exog": pd.DataFrame(made.rhs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SUR(equations)
        options: dict[str, Any] = {"method": "ols" if how == "ols" else "gls", "cov_type": "unadjusted"}
        if how == "ml":
            options |= {"iterate": True, "iter_limit": 5000, "tol": 1e-12}
        found = model.fit(**options)
    return found.params.to_numpy(), found.std_errors.to_numpy()


def ours(frame: pd.DataFrame, formula: str, how: str, **keys: Any) -> Fit:
    return LowRankGLS(**HOW[how], missing="drop").fit(System.from_frame(frame, formula, **keys)).result_


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("formula", ["invest ~ value + capital", "invest ~ value * C(war) + np.log(capital)"])
def test_grunfeld_is_linearmodels(formula: str, how: str) -> None:
    """A category with interactions among them: the war years, which all firms share."""
    frame = GRUNFELD if "war" not in formula else GRUNFELD[GRUNFELD["firm"].str.startswith(("Gen", "US"))]
    fit = ours(frame.sample(frac=1, random_state=0), formula, how, equation="firm", obs="year")
    params, errors = by_sur(frame, formula, "firm", how)
    tolerance = {"rtol": 1e-6 if how == "ml" else 1e-9, "atol": 1e-9 * np.abs(params).max()}
    np.testing.assert_allclose(fit.coefficients, params, **tolerance)
    np.testing.assert_allclose(fit.std_errors.values, errors, **tolerance)


@pytest.mark.parametrize("how", ["ols", "gls"])
def test_munnell_is_linearmodels_and_a_dense_computation(how: str) -> None:
    """Seven nearly collinear regressors, 17 years: linearmodels, by normal equations, has six digits, QR has ten."""
    fit = ours(MUNNELL, PRODUCTION, how, equation="region", obs="YR")
    params, errors = by_sur(MUNNELL, PRODUCTION, "region", how)
    np.testing.assert_allclose(fit.coefficients, params, rtol=2e-6)
    np.testing.assert_allclose(fit.std_errors.values, errors, rtol=2e-6)
    np.testing.assert_allclose(fit.coefficients, dense(how), rtol=1e-9, atol=1e-10)


def dense(how: str) -> np.ndarray:
    """Least squares of each region by QR, and of all of them once whitened by the Cholesky factor of S."""
    names = ["PC", "HWY", "WATER", "UTIL", "EMP"]
    regions = [mine for _, mine in MUNNELL.groupby("region")]
    Xs = [np.column_stack([np.ones(17), np.log(mine[names]), mine["UNEMP"]]) for mine in regions]
    ys = [np.log(mine["GSP"].to_numpy()) for mine in regions]
    alone = [np.linalg.lstsq(X, y, rcond=None)[0] for X, y in zip(Xs, ys, strict=True)]
    if how == "ols":
        return np.concatenate(alone)
    R = np.column_stack([y - X @ b for X, y, b in zip(Xs, ys, alone, strict=True)])
    whiten = np.kron(np.linalg.inv(np.linalg.cholesky(R.T @ R / 17)), np.eye(17))
    return np.linalg.lstsq(whiten @ scipy.linalg.block_diag(*Xs), whiten @ np.concatenate(ys), rcond=None)[0]


@pytest.mark.parametrize("how", ["ols", "gls"])
def test_unbalanced_grunfeld_is_linearmodels_on_the_years_that_all_have(how: str) -> None:
    """missing="drop" in the fit takes these years, as linearmodels does."""
    gone = GRUNFELD.drop(index=GRUNFELD.index[[3, 17, 44, 70]])
    gone.loc[gone.index[30], "value"] = np.nan
    fit = ours(gone, "invest ~ value + capital", how, equation="firm", obs="year")
    whole = gone.dropna().groupby("year")["firm"].transform("count")
    kept = gone.dropna()[whole == 5]
    params, errors = by_sur(kept, "invest ~ value + capital", "firm", how)
    assert fit.n_obs == len(kept) // 5
    np.testing.assert_allclose(fit.coefficients, params, rtol=1e-9)
    np.testing.assert_allclose(fit.std_errors.values, errors, rtol=1e-9)


def test_unbalanced_grunfeld_by_least_squares_uses_every_cell() -> None:
    gone = GRUNFELD.drop(index=GRUNFELD.index[[3, 17, 44, 70]])
    system = System.from_frame(gone, "invest ~ value + capital", equation="firm", obs="year")
    fit = LowRankGLS(0, algorithm="ols", missing="em").fit(system).result_
    for j, (_, mine) in enumerate(gone.groupby("firm")):
        X = np.column_stack([np.ones(len(mine)), mine[["value", "capital"]]])
        expected, *_ = np.linalg.lstsq(X, mine["invest"].to_numpy(), rcond=None)
        np.testing.assert_allclose(fit.coefficients[3 * j : 3 * j + 3], expected, rtol=1e-9)


def test_unbalanced_grunfeld_by_one_step_of_gls_is_the_dense_one() -> None:
    """b = (X' V^-1 X)^-1 X' V^-1 y over the cells that are there, V the fitted Sigma of the cells of each year."""
    gone = GRUNFELD.drop(index=GRUNFELD.index[[3, 17, 44, 70]])
    system = System.from_frame(gone, "invest ~ value + capital", equation="firm", obs="year")
    fit = LowRankGLS(covariance="full", missing="em", rel_tol=1e-15, max_sweeps=5000).fit(system).result_
    sigma, firms = fit.sigma().values, list(fit.equations)
    A, c = np.zeros((15, 15)), np.zeros(15)
    for _, year in gone.groupby("year"):
        at = [firms.index(firm) for firm in year["firm"]]
        X = np.zeros((len(at), 15))
        for i, (j, (value, capital)) in enumerate(zip(at, year[["value", "capital"]].to_numpy(), strict=True)):
            X[i, 3 * j : 3 * j + 3] = 1.0, value, capital
        W = np.linalg.inv(sigma[np.ix_(at, at)])
        A += X.T @ W @ X
        c += X.T @ W @ year["invest"].to_numpy()
    np.testing.assert_allclose(fit.coefficients, np.linalg.solve(A, c), rtol=1e-9)
