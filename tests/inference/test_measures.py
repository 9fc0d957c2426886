"""R2 per equation, adjusted and of the system, against linearmodels, systemfit and sums of squares by hand."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from linearmodels.system import SUR

from lrgls_dask import Fit, System
from lrgls_dask.results.evidence import CompressedRows, StreamedSums
from support.fits import at, by_gram, fit, remade
from support.reference import by_linearmodels, load, system_of
from support.systems import Data, dask_rows, simulate

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

KINDS = ["own", "shared", "mixed"]
CASES = ["case01c_grunfeld_correct5", "case02b_kmenta_system2", "case03c_fringe_same_regressors"]


def same_by_linearmodels(data: Data, *, constant: bool = True) -> tuple[Any, Fit]:
    """Feasible GLS by linearmodels, and a Fit at its estimates."""
    equations = {}
    for j, X in enumerate(data.Xs):
        equations[f"y{j}"] = {"dependent": data.Y[:, [j]], "exog": X if constant else X[:, 1:]}
        if data.weights is not None:
            equations[f"y{j}"]["weights"] = data.weights[:, None]
    result = SUR(equations).fit(method="gls")
    if not constant:
        X = data.X[:, 1:] if data.kind == "shared" else data.X
        data = dataclasses.replace(data, X=X, columns=tuple(c[1:] - (data.kind == "shared") for c in data.columns))
    made = fit(data.system(), rank=0)
    level = 1.0 if data.weights is None else data.weights.mean()  # linearmodels weighs by w over its mean
    return result, at(made, result.params.to_numpy(), result.sigma.to_numpy() * level)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_measures_are_those_of_linearmodels(kind: str, weighted: bool, constant: bool) -> None:
    data = simulate(kind, n=60, weighted=weighted, unit=7.0)
    if not constant:  # the first column is an intercept; without it level and total differ
        data = dataclasses.replace(data, Y=data.Y + 3.0)
    result, made = same_by_linearmodels(data, constant=constant)
    for name in made.equations:
        theirs = result.equations[name]
        np.testing.assert_allclose(made.r2.sel(equation=name).item(), theirs.rsquared, rtol=1e-9)
        np.testing.assert_allclose(made.adj_r2.sel(equation=name).item(), theirs.rsquared_adj, rtol=1e-9)
    np.testing.assert_allclose(made.mcelroy_r2(), result.system_rsquared["mcelroy"], rtol=1e-9)
    of_system = made.system_r2().to_series()
    np.testing.assert_allclose(of_system[result.system_rsquared.index], result.system_rsquared, rtol=1e-9)
    assert (made.df_model, made.df_resid) == (result.df_model, result.df_resid)


@pytest.mark.parametrize("case", CASES)
def test_digits_of_linearmodels_and_systemfit(case: str) -> None:
    reference, data = load(case)
    theirs = by_linearmodels(case)
    made = fit(system_of(reference["equations"], data, reference.get("outcomes")), rank=0)
    for name in ("gls_onestep_unadjusted_plain", "gls_iterated_unadjusted_plain"):
        expected = theirs[name]
        b = np.array([expected["coefficients"][e][v] for e, vs in reference["equations"].items() for v in vs])
        here = at(made, b, np.array(expected["sigma"]))
        np.testing.assert_allclose(here.r2.values, list(expected["r2_per_equation"].values()), rtol=1e-8)
        np.testing.assert_allclose(here.mcelroy_r2(), expected["system_rsquared"]["mcelroy"], rtol=1e-8)
        for measure, value in here.system_r2().to_series().items():
            np.testing.assert_allclose(value, expected["system_rsquared"][measure], rtol=1e-7)
        np.testing.assert_allclose(here._sums.residual.sum(), expected["resid_ss"], rtol=1e-8)
        np.testing.assert_allclose(here._sums.total.sum(), expected["total_ss"], rtol=1e-8)
    for name in ("sur_onestep_noDfCor", "sur_iterated_noDfCor"):  # systemfit weights by the final residuals
        expected = reference["fits"][name]
        b = np.array([expected["coefficients"][e][v] for e, vs in reference["equations"].items() for v in vs])
        here = at(made, b, np.eye(made.n_equations))
        np.testing.assert_allclose(here.r2.values, expected["r2_per_equation"], rtol=1e-8)
        np.testing.assert_allclose(here.adj_r2.values, expected["adj_r2_per_equation"], rtol=1e-8)
        np.testing.assert_allclose(here.mcelroy_r2("residual"), expected["mcelroy_r2"], rtol=1e-8)
        judge = here.system_r2("residual").sel(measure="judge").item()
        np.testing.assert_allclose(judge, expected["system_ols_r2"], rtol=1e-8)
        assert here.df_resid == expected["df_residual_sys"]


@pytest.mark.parametrize("route", ["qr", "gram"])
def test_a_constant_is_seen_in_whatever_it_is_made_of(route: str) -> None:
    """Dummies, two columns that add up to one, a number other than 1; a column that nearly is one does not count."""
    n, rng = 300, np.random.default_rng(4)
    halves = (np.arange(n) % 3 == 0).astype(float)
    z = rng.normal(size=n)
    designs = {
        "dummies": np.column_stack([halves, 1 - halves, z]),
        "sum": np.column_stack([2 - z, z]),
        "seven": np.column_stack([z, np.full(n, 7.0)]),
        "none": np.column_stack([z, rng.normal(size=n) + 5]),
        "almost": np.column_stack([z, 1e6 + rng.normal(size=n)]),
        "one dummy": halves[:, None],
    }
    Y = 10 + rng.normal(size=(n, 6)) + z[:, None]
    system = System.from_arrays(Y, list(designs.values()), equations=list(designs))
    made = fit(system if route == "qr" else by_gram(system), rank=0)
    has = np.array([True, True, True, False, False, False])
    assert made.evidence.rows_for(made.estimated, "the test").route == route
    np.testing.assert_array_equal(made._sums.constant, has)
    residual = np.sum(made.residuals(system).values ** 2, axis=0)
    total = np.where(has, np.sum((Y - Y.mean(axis=0)) ** 2, axis=0), np.sum(Y**2, axis=0))
    np.testing.assert_allclose(made.r2.values, 1 - residual / total, rtol=1e-9)
    freedom = (n - has) / (n - np.array([X.shape[1] for X in designs.values()]))
    np.testing.assert_allclose(made.adj_r2.values, 1 - residual / total * freedom, rtol=1e-9)
    streamed = fit(system, engine="stream", rank=0)
    np.testing.assert_array_equal(streamed._sums.constant, has)


def test_r2_keeps_its_digits_far_from_zero() -> None:
    data = simulate("mixed", n=80)
    near = fit(data.system(), rank=1)
    far = fit(dataclasses.replace(data, Y=data.Y + 1e7).system(), rank=1)
    np.testing.assert_allclose(far.r2.values, near.r2.values, rtol=1e-6)
    np.testing.assert_allclose(far.mcelroy_r2(), near.mcelroy_r2(), rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_fits_know_r2(kind: str, weighted: bool) -> None:
    data = simulate(kind, weighted=weighted)
    streamed, whole = fit(data.system(dask_rows(50)), engine="stream"), fit(data.system())
    np.testing.assert_allclose(streamed.r2.values, whole.r2.values, rtol=1e-6)
    np.testing.assert_allclose(streamed.adj_r2.values, whole.adj_r2.values, rtol=1e-6)
    assert isinstance(streamed.evidence, StreamedSums) and isinstance(whole.evidence, CompressedRows)
    assert "not kept by a streamed fit" in streamed.summary()


def test_mcelroy_at_the_two_covariances() -> None:
    data = simulate("own", n=60)
    made, dense = fit(data.system()), data.dense()
    R, centred = dense.residuals(made.params.values), data.Y - data.Y.mean(axis=0)
    for choice, sigma in (("reported", made.sigma().values), ("residual", R.T @ R / 60)):
        inverse = np.linalg.inv(sigma)
        expected = 1 - np.trace(inverse @ R.T @ R) / np.trace(inverse @ centred.T @ centred)
        np.testing.assert_allclose(made.mcelroy_r2(choice), expected, rtol=1e-10)
    with pytest.raises(ValueError, match=re.escape("sigma must be 'reported' or 'residual'; got 'weighting'.")):
        made.mcelroy_r2("weighting")


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_system_r2_of_one_step_fits_are_those_of_linearmodels(kind: str, debiased: bool) -> None:
    data = simulate(kind, n=60, unit=7.0)
    equations = {f"y{j}": {"dependent": data.Y[:, [j]], "exog": X} for j, X in enumerate(data.Xs)}
    expected = SUR(equations).fit(method="gls", cov_type="unadjusted", debiased=debiased).system_rsquared
    made = fit(data.system(), rank="auto", covariance="full", algorithm="fgls", debiased=debiased)
    np.testing.assert_allclose(made.system_r2().to_series()[expected.index], expected, rtol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 1e-60])
def test_system_r2_at_factors_and_at_the_residuals_by_hand(unit: float) -> None:
    """Determinants of 6 x 6 in units of 1e-60 under- or overflow; the ratio does not."""
    data = simulate("own", n=60)
    data = dataclasses.replace(data, Y=data.Y * unit)
    made = fit(data.system(), rank=2)
    R, T = (data.dense().residuals(made.params.values) / unit, (data.Y - data.Y.mean(axis=0)) / unit)
    rss, tss = np.sum(R**2, axis=0), np.sum(T**2, axis=0)
    for choice, sigma in (("reported", made.sigma().values / unit**2), ("residual", R.T @ R / 60)):
        by_name = made.system_r2(choice).to_series()
        expected = {
            "berndt": 1 - np.linalg.det(sigma) / np.linalg.det(T.T @ T / 60),
            "judge": 1 - rss.sum() / tss.sum(),
            "dhrymes": np.sum((1 - rss / tss) * tss) / tss.sum(),
            "mcelroy": made.mcelroy_r2(choice),
        }
        assert dict(by_name) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match=r"sigma must be 'reported' or 'residual'; got 'ols'\."):
        made.system_r2("ols")


@pytest.mark.filterwarnings("ignore:LowRankGLS. a constant response or a perfect fit")
def test_a_response_that_does_not_vary_has_no_r2() -> None:
    data = simulate("shared", n=40)
    Y = data.Y.copy()
    Y[:, 2] = 4.2
    made = fit(dataclasses.replace(data, Y=Y).system(), rank=1)
    assert np.isnan(made.r2.values).tolist() == [False, False, True, False, False, False]
    of_system, varies = made.system_r2().to_series(), [0, 1, 3, 4, 5]
    weights = np.var(Y[:, varies], axis=0)
    np.testing.assert_allclose(of_system["dhrymes"], np.average(made.r2.values[varies], weights=weights), rtol=1e-9)
    assert np.isnan(of_system["berndt"]) and 0 < of_system["judge"] < 1
    assert made.summary().splitlines()[-5].split()[-1] == "-"


def test_the_summary_shows_them() -> None:
    made = fit(simulate("own", n=60).system())
    text = made.summary()
    assert f"McElroy R2:      {made.mcelroy_r2():.6f}" in text
    assert f"Residual df:     {60 * 6 - made.n_coefficients:,}" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines()[-8:-1]}
    assert lines["Equation"][-1] == "R2"
    for name, value in zip(made.equations, made.r2.values, strict=True):
        assert lines[name][-1] == f"{value:.4f}"


def test_criteria_count_the_parameters_of_the_low_rank_model() -> None:
    made = fit(simulate("own", n=60).system(), rank=2)
    count = made.n_coefficients + 6 * 2 + 6 - 1
    np.testing.assert_allclose(made.aic, -2 * made.loglik + 2 * count, rtol=1e-14)
    np.testing.assert_allclose(made.bic, -2 * made.loglik + math.log(60) * count, rtol=1e-14)


def test_a_streamed_fit_saved_before_r2_was_kept() -> None:
    old = remade(fit(simulate("own").system(), engine="stream"), squares=None)
    with pytest.raises(ValueError, match=r"saved without sums of squares, so it has no R2\. Fit again"):
        _ = old.r2
    assert old.summary().splitlines()[-2].split()[-1] == "-"


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_collinear_columns_are_no_constant(engine: str) -> None:
    """Ridge fits take collinear columns and columns of zeros; neither makes an intercept, close kin neither."""
    n, rng = 200, np.random.default_rng(8)
    z, u = rng.normal(size=(2, n)) + 3.0
    designs = {
        "copy": np.column_stack([z, 2 * z, u]),
        "zeros": np.column_stack([z, np.zeros(n)]),
        "close": np.column_stack([z, 5.0 - z + 1e-4 * u]),
        "constant": np.column_stack([z, 2 * z, 5.0 - z]),
    }
    Y = 10 + rng.normal(size=(n, 4))
    system = System.from_arrays(Y, list(designs.values()), equations=list(designs))
    made = fit(system, rank=0, lam_B=1.0, engine=engine)
    np.testing.assert_array_equal(made._sums.constant, [False, False, False, True])
    residual = np.sum(made.residuals(system).values ** 2, axis=0)
    centred = np.sum((Y[:, 3] - Y[:, 3].mean()) ** 2)
    np.testing.assert_allclose(made.r2.values, 1 - residual / [*np.sum(Y[:, :3] ** 2, axis=0), centred], rtol=1e-8)
