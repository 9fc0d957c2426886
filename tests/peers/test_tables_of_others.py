"""Packages that make tables and effects of models, run on fits: maketables, great_tables, marginaleffects."""

from __future__ import annotations

from typing import Any

import great_tables
import maketables
import marginaleffects
import numpy as np
import pandas as pd
import polars
import pytest
import statsmodels.formula.api as smf
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System
from support.absorbed import grouped

RNG = np.random.default_rng(12)
N = 90
FRAME = pd.DataFrame(RNG.normal(size=(N, 5)), columns=["food", "rent", "price", "income", "age"])
FRAME["food"] += 0.7 * FRAME["price"] - 0.2 * FRAME["price"] * FRAME["income"]


@pytest.fixture(scope="module")
def ols() -> Fit:
    """Least squares with the degrees of freedom of statsmodels, whose numbers are then the same."""
    system = System.from_frame(FRAME, {"food": "food ~ price * income", "rent": "rent ~ price + I(age**2)"})
    return LowRankGLS(algorithm="ols", debiased=True, use="t", rank=0).fit(system).result_


@pytest.fixture(scope="module")
def theirs() -> Any:
    return smf.ols("food ~ price * income", FRAME).fit()


def test_an_equation_looks_like_a_result_of_statsmodels(ols: Fit, theirs: Any) -> None:
    mine = ols["food"]
    assert list(mine.params.index) == list(theirs.params.index) == mine.model.exog_names
    for name in ("params", "bse", "tvalues", "pvalues"):
        np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-7, err_msg=name)
    np.testing.assert_allclose(mine.cov_params(), theirs.cov_params(), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(mine.conf_int(0.1), theirs.conf_int(0.1), rtol=1e-7)
    for name in ("rsquared", "rsquared_adj", "nobs", "df_resid", "scale"):
        assert getattr(mine, name) == pytest.approx(getattr(theirs, name)), name
    assert mine.use_t and mine.cov_type == "classical" and mine.model.endog_names == "food"
    new = FRAME.iloc[5:9]
    pd.testing.assert_series_equal(mine.predict(new), theirs.predict(new), check_names=False, rtol=1e-9)
    np.testing.assert_allclose(mine.predict(theirs.model.exog[:3]), theirs.fittedvalues[:3], rtol=1e-9)
    assert repr(mine).startswith("<equation 'food' of <Fit: 2 equations")


def test_errors_of_an_equation_are_those_that_were_chosen(ols: Fit) -> None:
    robust = ols.with_cov("robust", correction="HC1")["food"]
    theirs = smf.ols("food ~ price * income", FRAME).fit(cov_type="HC1", use_t=True)
    np.testing.assert_allclose(robust.bse, theirs.bse, rtol=1e-6)
    np.testing.assert_allclose(robust.cov_params(), theirs.cov_params(), rtol=1e-6, atol=1e-12)
    assert robust.cov_type == "robust"


def test_an_equation_that_there_is_not(ols: Fit) -> None:
    with pytest.raises(KeyError, match="no equation 'fod'; there are 'food', 'rent'; did you mean 'food'"):
        ols["fod"]
    with pytest.raises(TypeError, match="not iterable"):
        list(ols)  # type: ignore[call-overload]


def test_equations_on_several_dims_go_by_tuples() -> None:
    X, Y = RNG.normal(size=(60, 1)), RNG.normal(size=(60, 2, 2))
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), Y), "trend": ("time", X[:, 0])}, coords={"lat": [1.5, 2.5], "lon": [10, 20]}
    )
    system = System.from_xarray(ds, "t", ["trend"], obs="time", equation=("lat", "lon"))
    found = LowRankGLS(0).fit(system).result_
    view = found[2.5, 10]
    b = found.to_dataset()["params"].sel(lat=2.5, lon=10).item()
    assert view.params["trend"] == b
    np.testing.assert_allclose(view.predict(pd.DataFrame({"trend": [2.0]})), [2 * b])
    np.testing.assert_allclose(view.predict(system), X[:, 0] * b)
    assert maketables.ETable([view]).make(type="tex").count("trend") == 1


def test_what_an_equation_predicts_from(ols: Fit) -> None:
    view, system = ols["food"], grouped().system("firm")
    p = len(view.params)
    np.testing.assert_allclose(view.predict(np.arange(p)), np.arange(p) @ view.params.to_numpy())
    one = view.predict(FRAME[:1])
    np.testing.assert_allclose(view.predict(FRAME.iloc[0]), one)
    for wrong in (np.ones((3, p - 1)), np.ones(p + 1), np.ones((1, 1, p)), 3.0):
        with pytest.raises(ValueError, match=rf"equation 'food' has {p} regressors, .* got an array of shape"):
            view.predict(wrong)
    for wrong in ({"price": [1.0]}, "price"):
        with pytest.raises(TypeError, match="predict takes a frame, an array of numbers or a System; got"):
            view.predict(wrong)
    absorbed = LowRankGLS(1).fit(system).result_["y0"]
    names = absorbed.model.exog_names
    for rows in (np.ones((2, len(names))), pd.Series(1.0, names), pd.DataFrame(1.0, [0], names)):
        with pytest.raises(ValueError, match="have effects that were absorbed, and frames and arrays do not say whose"):
            absorbed.predict(rows)
    assert np.isfinite(absorbed.predict(system).values).all()


# ---------------------------------------------------------------------------------- maketables


def test_tables_of_maketables_have_our_numbers(ols: Fit, theirs: Any) -> None:
    one = maketables.ETable([ols["food"], ols["rent"]], model_stats=["N", "r2", "adj_r2", "se_type"])
    latex = one.make(type="tex")
    for value in ols.tidy()["estimate"]:
        assert f"{value:.3f}" in latex
    for value in ols.tidy("food")["std_error"]:
        assert f"({value:.3f})" in latex
    assert "food" in latex and "rent" in latex and f"{ols.r2.values[0]:.3f}" in latex and "classical" in latex
    same = maketables.ETable([theirs]).make(type="tex")
    assert [f"{b:.3f}" in same for b in ols["food"].params] == [True] * 4


def test_great_tables_of_a_whole_fit(ols: Fit) -> None:
    made = maketables.ETable([ols]).make(type="gt")
    assert isinstance(made, great_tables.GT)
    html = made.as_raw_html()
    assert "food, price" in html and "rent, I(age ** 2)" in html and "2 equations" in html
    assert "Equations" in html and f"{abs(ols.params.values[1]):.3f}" in html


def test_absorbed_effects_are_the_fixed_effects_of_maketables() -> None:
    found = LowRankGLS(1).fit(grouped().system("firm")).result_
    assert "firm" in maketables.ETable([found]).make(type="tex")
    view = found["y0"]
    assert view.__maketables_fixef_string__ == "firm" and view.__maketables_depvar__ == "y0"
    assert view.__maketables_stat__("N") == 240 and view.__maketables_stat__("fvalue") is None
    assert view.__maketables_coef_table__["b"].tolist() == view.params.tolist()
    assert view.__maketables_vcov_info__["vcov_type"] == "classical"


# ---------------------------------------------------------------------------------- marginaleffects


@pytest.fixture
def polars_of_marginaleffects(monkeypatch: pytest.MonkeyPatch) -> None:
    """marginaleffects 0.6 asks of columns of float whether they are in [0, 1], which polars 2 no longer compares."""
    if int(polars.__version__.split(".")[0]) < 2:
        return
    is_in = polars.Series.is_in

    def as_before(self: polars.Series, other: Any, **more: Any) -> polars.Series:
        return is_in(self, polars.Series(other, dtype=self.dtype) if self.dtype.is_float() else other, **more)

    monkeypatch.setattr(polars.Series, "is_in", as_before)


@pytest.mark.usefixtures("polars_of_marginaleffects")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_effects_of_marginaleffects_are_those_of_statsmodels(ols: Fit, theirs: Any) -> None:
    mine = ols["food"].with_frame(FRAME)
    columns = ["estimate", "std_error", "p_value", "conf_low", "conf_high"]
    for effect in (marginaleffects.avg_slopes, marginaleffects.predictions):
        found, expected = (effect(model).select(columns).to_numpy() for model in (mine, theirs))
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-9)  # their derivatives are differences
    by_hand = mine.params["price"] + mine.params["price:income"] * FRAME["income"].mean()
    slope = marginaleffects.avg_slopes(mine, variables="price")["estimate"].item()
    assert slope == pytest.approx(by_hand, rel=1e-5)
    tested = marginaleffects.hypotheses(mine, hypothesis="price=income")
    wald = ols.wald_test("food:price - food:income = 0", use_f=True)
    assert tested["statistic"].item() ** 2 == pytest.approx(wald.statistic, rel=2e-3)


@pytest.mark.usefixtures("polars_of_marginaleffects")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_formulas_the_data_are_those_of_the_system() -> None:
    X = np.column_stack([np.ones(N), FRAME[["price", "income"]]])
    names = {"equations": ["food", "rent"], "regressors": ["const", "price", "income"]}
    found = LowRankGLS(0).fit(System.from_arrays(FRAME[["food", "rent"]].to_numpy(), X, **names)).result_
    view = found["rent"]
    assert view.model.formula == "rent ~ 1 + price + income"
    pd.testing.assert_frame_equal(view.model.data.frame, FRAME[["rent", "price", "income"]])
    slopes = marginaleffects.avg_slopes(view)
    np.testing.assert_allclose(slopes["estimate"], view.params[slopes["term"].to_list()], rtol=1e-5)
    np.testing.assert_allclose(slopes["std_error"], view.bse[slopes["term"].to_list()], rtol=2e-3)
