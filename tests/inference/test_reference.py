"""The distribution of p-values, intervals and tests, against statsmodels, linearmodels and their formulas."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
from linearmodels.system import SUR

from lrgls_dask import Fit, LowRankGLS, TimeVarying, TimeVaryingFit
from support.incomplete import with_holes
from support.systems import Data, simulate

N, K = 60, 3
GROUPS = np.random.default_rng(5).integers(0, 12, size=N)
DATA = simulate("own", n=N, K=K, k=1)
P = sum(len(c) for c in DATA.columns)
ROADS: dict[str, Any] = {
    "compress": {"covariance": "full"},
    "stream": {"covariance": "full", "engine": "stream", "rel_tol": 1e-12},
    "drop": {"covariance": "full", "missing": "drop"},
    "holes": {"rank": 1, "missing": "em"},
    "segments": {"covariance": TimeVarying(1, np.arange(N) // 20, 2.0)},
}
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS", "ignore:clustered covariance")


def seen_by(road: str) -> Data:
    return with_holes(DATA, 0.1) if road in ("drop", "holes") else DATA


def made(road: str, **options: Any) -> Any:
    return LowRankGLS(**(ROADS[road] | options)).fit(seen_by(road).system()).result_


def freedom_of(road: str, use: str) -> np.ndarray:
    """(P,) degrees of freedom counted from the data."""
    shown = ~np.isnan(seen_by(road).Y)
    if road == "drop":
        shown = shown & shown.all(axis=1, keepdims=True)
    sizes = np.array([len(c) for c in DATA.columns])
    by_equation = shown.sum(axis=0) - sizes
    wanted = {"t": by_equation, "system-t": np.full(K, shown.sum() - P), "normal": np.full(K, np.inf)}
    return np.repeat(wanted[use], sizes)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("use", ["t", "normal", "system-t"])
def test_p_values_intervals_and_tests_refer_to_what_was_asked_for(road: str, use: Any, tmp_path: Any) -> None:
    fit, df = made(road, use=use), freedom_of(road, use)
    t = np.abs(fit.params.values / fit.std_errors.values)
    np.testing.assert_allclose(fit.pvalues, 2 * scipy.stats.t.sf(t, df), rtol=1e-10)
    half = scipy.stats.t.isf(0.05, df) * fit.std_errors.values
    np.testing.assert_allclose(fit.conf_int(0.1).values[:, 1], fit.params.values + half, rtol=1e-12)
    one, both = fit.wald_test("y1:x2 = 0"), fit.wald_test(["y1:x2 = 0", "y2:x3 = 0.5"])
    at = 4
    assert one.pvalue == pytest.approx(float(fit.pvalues[at]), rel=1e-8)
    if use == "normal":
        assert (one.distribution, both.distribution, both.df_denominator) == ("chi2", "chi2", None)
        assert "z" in fit.summary().split("std err")[1].split("P>|z|")[0]
        assert "P-values:        normal; joint tests chi2" in fit.summary()
    else:
        assert (one.distribution, both.distribution) == ("F", "F")
        assert both.df_denominator == freedom_of(road, "system-t")[0]
        assert one.df_denominator == df[at]
        assert re.search(r"P-values: +t, .*df \((N - p_j|N K - P)\); joint tests F", fit.summary())
    saved = str(tmp_path / "fit.zarr")
    fit.to_zarr(saved)
    again = (TimeVaryingFit if road == "segments" else Fit).from_zarr(saved)
    np.testing.assert_array_equal(again.pvalues, fit.pvalues)
    assert again.use == use


@pytest.mark.parametrize("road", ["compress", "stream", "segments"])
def test_without_a_word_p_values_are_of_t_and_joint_tests_of_chi2(road: str) -> None:
    fit = made(road)
    t = np.abs(fit.params.values / fit.std_errors.values)
    np.testing.assert_allclose(fit.pvalues, 2 * scipy.stats.t.sf(t, freedom_of(road, "t")), rtol=1e-10)
    assert fit.wald_test("y1:x2 = 0").distribution == "chi2"
    assert fit.wald_test("y1:x2 = 0", use_f=True).df_denominator == N * K - P
    assert "joint tests chi2" in fit.summary()


@pytest.mark.parametrize("road", ["compress", "stream", "segments"])
@pytest.mark.parametrize("use", [None, "t", "system-t"])
def test_clusters_have_as_many_freedoms_as_groups_less_one(road: str, use: Any, tmp_path: Any) -> None:
    fit = made(road, use=use).with_cov("cluster", groups=GROUPS, correction="HC1")
    t = np.abs(fit.params.values / fit.std_errors.values)
    np.testing.assert_allclose(fit.pvalues, 2 * scipy.stats.t.sf(t, 11), rtol=1e-10)
    joint = fit.wald_test(["y1:x2 = 0", "y2:x3 = 0.5"], use_f=None if use else True)
    assert (joint.distribution, joint.df, joint.df_denominator) == ("F", 2, 11)
    assert joint.pvalue == pytest.approx(scipy.stats.f.sf(joint.statistic, 2, 11))
    assert f"t, 11 df (G - 1); joint tests {'F' if use else 'chi2'}" in fit.summary()
    assert fit.wald_test("y1:x2 = 0", use_f=None if use is None else False).distribution == "chi2"
    normal = fit.with_cov(use="normal")
    np.testing.assert_array_equal(normal.std_errors, fit.std_errors)
    np.testing.assert_allclose(normal.pvalues, 2 * scipy.stats.norm.sf(t), rtol=1e-10)
    assert normal.wald_test("y1:x2 = 0").distribution == "chi2"
    fit.to_zarr(str(tmp_path / "fit.zarr"))
    again = type(fit).from_zarr(str(tmp_path / "fit.zarr"))
    np.testing.assert_array_equal(again.conf_int(), fit.conf_int())
    assert again.with_cov(use="normal").summary() != again.summary()


def test_one_equation_has_the_digits_of_statsmodels() -> None:
    y, X = DATA.Y[:, 0], DATA.Xs[0]
    one = Data("own", DATA.Y[:, :1], X, (np.arange(X.shape[1]),))
    fit = LowRankGLS(use="t").fit(one.system()).result_.with_cov("cluster", groups=GROUPS, correction="HC1")
    theirs = sm.OLS(y, X).fit(cov_type="cluster", cov_kwds={"groups": GROUPS}, use_t=True)
    np.testing.assert_allclose(fit.pvalues, theirs.pvalues, rtol=1e-7)
    np.testing.assert_allclose(fit.conf_int(), theirs.conf_int(), rtol=1e-7)
    ours, test = fit.wald_test(["y0:x1 = 0", "y0:x0 = 0"]), theirs.f_test(np.eye(2))
    assert (ours.statistic, ours.pvalue) == (pytest.approx(float(test.fvalue)), pytest.approx(float(test.pvalue)))
    assert ours.df_denominator == theirs.df_resid_inference
    robust = LowRankGLS(use="normal").fit(one.system()).result_.with_cov("robust", correction="HC1")
    white = sm.OLS(y, X).fit(cov_type="HC1")
    np.testing.assert_allclose(robust.pvalues, white.pvalues, rtol=1e-7)
    np.testing.assert_allclose(robust.conf_int(), white.conf_int(), rtol=1e-7)
    debiased = LowRankGLS(use="t").fit(one.system()).result_.with_cov("classical", debiased=True)
    plain = sm.OLS(y, X).fit()
    np.testing.assert_allclose(debiased.pvalues, plain.pvalues, rtol=1e-7)
    coverage = debiased.predict(one.system(), interval=0.9)
    frame = plain.get_prediction(X).summary_frame(alpha=0.1)
    np.testing.assert_allclose(coverage["lower"].values[:, 0], frame["mean_ci_lower"], rtol=1e-7)


def test_several_equations_have_the_digits_of_linearmodels() -> None:
    equations = {f"y{j}": {"dependent": DATA.Y[:, j], "exog": DATA.Xs[j]} for j in range(K)}
    theirs = SUR(equations).fit(method="gls", cov_type="unadjusted")
    fit = LowRankGLS(covariance="full", algorithm="fgls", use="normal").fit(DATA.system()).result_
    np.testing.assert_allclose(fit.pvalues, theirs.pvalues, rtol=1e-6)
    np.testing.assert_allclose(fit.conf_int(), theirs.conf_int(), rtol=1e-7)


@pytest.mark.parametrize(("use", "df"), [("t", None), ("normal", np.inf), ("system-t", N * K - P)])
def test_intervals_of_predictions_follow(use: Any, df: float | None) -> None:
    fit = LowRankGLS(1, use=use).fit(DATA.system()).result_
    found = fit.predict(DATA.system(), interval=0.9)
    each = np.array([N - len(c) if df is None else df for c in DATA.columns])
    half = (found["upper"] - found["predicted"]) / found["std_error"]
    np.testing.assert_allclose(half, np.broadcast_to(scipy.stats.t.isf(0.05, each), (N, K)), rtol=1e-9)
    given = fit.predict_given(DATA.system(), observed=["y0"], interval=0.9).isel(equation=slice(1, None))
    half = (given["upper"] - given["predicted"]) / given["std_error"]
    np.testing.assert_allclose(half, np.broadcast_to(scipy.stats.t.isf(0.05, each[1:]), (N, K - 1)), rtol=1e-9)


def test_restrictions_count_free_coefficients() -> None:
    held = {"y1:x2": 0.0}
    fit = LowRankGLS(1, restrictions=held, use="t").fit(DATA.system()).result_
    assert fit.wald_test("y1:x1 = 0").df_denominator == N - (len(DATA.columns[1]) - 1)
    assert fit.with_cov(use="system-t").wald_test("y1:x1 = 0").df_denominator == N * K - (P - 1)


def test_the_page_of_a_notebook_says_it_and_nonsense_is_refused() -> None:
    fit = LowRankGLS(1, use="normal").fit(DATA.system()).result_
    assert "normal; joint tests chi2" in fit._repr_html_()
    assert "P&gt;|z|" in fit._repr_html_()
    with pytest.raises(ValueError, match="use must be"):
        LowRankGLS(1, use="z")
    with pytest.raises(ValueError, match="use must be"):
        fit.with_cov(use="T")
    table = fit.with_cov(use="t").coef_table()
    assert isinstance(table, pd.DataFrame)
    np.testing.assert_allclose(table["p"], fit.with_cov(use="t").pvalues)
