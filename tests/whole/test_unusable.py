"""Equations that cannot be estimated do not stop the others: unusable="skip", and what a fit then says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client

from lrgls_dask import (
    BlockLowRank,
    CompressedSystem,
    Fit,
    FitWarning,
    GroupedLowRank,
    Known,
    LowRankGLS,
    SparseLowRank,
    System,
    TimeVarying,
    TimeVaryingFit,
)
from support.unusable import BAD, GOOD, NAMES, SAID, Spoiled, check_same

HOLES = [False, True]
GROUPS = dict(zip(NAMES, [0, 0, 1, 1, 2, 2, 0, 1], strict=True))


def model(holes: bool, *how: Any, **options: Any) -> LowRankGLS:
    return LowRankGLS(*how, **({"missing": "em"} if holes else {}) | options)


def both(holes: bool, *how: Any, **options: Any) -> tuple[Any, Any, Spoiled]:
    """The fit that skips, that of the system without the equations, and the data."""
    data = Spoiled(holes=holes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = model(holes, *how, unusable="skip", **options).fit(data.system()).result_
        return found, model(holes, *how, **options).fit(data.good()).result_, data


def check_estimates(found: Any, expected: Any, atol: float = 1e-12) -> None:
    assert found.status.values.tolist() == SAID
    check_same(found.params, expected.params, atol=atol)
    check_same(found.std_errors, expected.std_errors, atol=atol)
    assert found.loglik == pytest.approx(expected.loglik, rel=1e-12)
    assert found.n_parameters == expected.n_parameters and found.n_obs == expected.n_obs


# ---------------------------------------------------------------------------------------------- the others


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize(
    "options",
    [
        {"rank": 1},
        {"covariance": "full"},
        {"covariance": "diagonal"},
        {"rank": 1, "algorithm": "em"},
        {"rank": 1, "algorithm": "fgls"},
        {"rank": 1, "algorithm": "ols"},
    ],
    ids=str,
)
def test_the_others_are_fitted_as_if_they_were_all(holes: bool, engine: Any, options: dict[str, Any]) -> None:
    found, expected, _ = both(holes, engine=engine, **options)
    check_estimates(found, expected)


@pytest.mark.parametrize("holes", HOLES)
def test_the_rank_is_chosen_for_the_others(holes: bool) -> None:
    found, expected, _ = both(holes, "bic", max_sweeps=500)
    check_estimates(found, expected)
    pd.testing.assert_frame_equal(found.selection, expected.selection)


def test_the_rank_is_cross_validated_for_the_others() -> None:
    found, expected, _ = both(False, "cv")
    check_estimates(found, expected)
    pd.testing.assert_frame_equal(found.selection, expected.selection)


def test_complete_rows_are_those_that_show_the_others() -> None:
    data = Spoiled(holes=True)
    found = LowRankGLS(1, missing="drop", unusable="skip").fit(data.system()).result_
    expected = LowRankGLS(1, missing="drop").fit(data.good()).result_
    check_estimates(found, expected)
    assert 0 < found.n_dropped == expected.n_dropped < 240


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize(
    ("covariance", "of_the_others"),
    [
        (Known(np.diag(np.arange(1.0, 9.0))), Known(np.diag(np.arange(1.0, 9.0)[GOOD]))),
        (
            Known(loadings=xr.DataArray(np.arange(8.0)[:, None], {"e": NAMES}, ("e", "k")), idio_var=np.ones(8)),
            Known(loadings=np.arange(8.0)[GOOD][:, None], idio_var=np.ones(5)),
        ),
        (GroupedLowRank(1, GROUPS, 0), GroupedLowRank(1, {n: GROUPS[n] for n in NAMES if n not in BAD}, 0)),
        (GroupedLowRank(1, [GROUPS], 0), GroupedLowRank(1, {n: GROUPS[n] for n in NAMES if n not in BAD}, 0)),
        (BlockLowRank(0, pd.Series(GROUPS)), BlockLowRank(0, {n: GROUPS[n] for n in NAMES if n not in BAD})),
        (SparseLowRank(1, 0.02), SparseLowRank(1, 0.02)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_a_covariance_says_of_each_equation_is_read_for_the_others(
    covariance: Any, of_the_others: Any, holes: bool
) -> None:
    data = Spoiled(holes=holes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = model(holes, covariance=covariance, unusable="skip").fit(data.system()).result_
        expected = model(holes, covariance=of_the_others).fit(data.good()).result_
    check_estimates(found, expected)


# ---------------------------------------------------------------------------------------------- from where


def in_zarr(values: np.ndarray) -> zarr.Array:
    array = zarr.create_array({}, shape=values.shape, chunks=(60, *values.shape[1:]), dtype=values.dtype)
    array[...] = values
    return array


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize(
    "wrap",
    [lambda v: da.from_array(v, chunks=(70, -1)), lambda v: da.from_array(v, chunks=(70, 3)), in_zarr, pd.DataFrame],
    ids=["dask", "dask by columns", "zarr", "pandas"],
)
def test_every_container(wrap: Any, engine: Any, holes: bool) -> None:
    if wrap is pd.DataFrame:
        data = Spoiled(holes=holes)
        system = System.from_arrays(pd.DataFrame(data.Y, columns=NAMES), pd.DataFrame(data.shared))
        expected = System.from_arrays(data.Y[:, GOOD], data.shared)
        few = [each.replace("of 4", "of 3") for each in SAID]
    else:
        data = Spoiled(holes=holes)
        system, expected, few = data.system(wrap), data.good(wrap), SAID
    found = model(holes, 1, engine=engine, unusable="skip").fit(system).result_
    other = model(holes, 1, engine=engine).fit(expected).result_
    assert found.status.values.tolist() == few
    check_same(found.params, other.params, atol=1e-10)
    check_same(found.std_errors, other.std_errors, atol=1e-10)


@pytest.mark.parametrize("holes", HOLES)
def test_labelled_data_and_stores(holes: bool, tmp_path: Path) -> None:
    data = Spoiled(holes=holes)
    system = System.from_xarray(data.dataset(), "y", ["const", "x", "z", "own"], obs="day", equation="firm")
    system.to_zarr(tmp_path / "s.zarr", row_chunk=50)
    expected = model(holes, 1).fit(data.good()).result_
    for each in (system, System.from_zarr(tmp_path / "s.zarr")):
        found = model(holes, 1, unusable="skip").fit(each).result_
        check_estimates(found, expected, atol=1e-10)
        fitted = found.predict(each)
        assert fitted.dims == ("day", "firm") and fitted["firm"].values.tolist() == NAMES
        assert np.isnan(fitted.sel(firm=list(BAD))).all() and not np.isnan(fitted.values[:, GOOD]).any()


def test_a_cluster(client: Client) -> None:
    data = Spoiled()
    system = data.system(in_zarr_of_blocks)
    found = LowRankGLS(1, unusable="skip").fit(system).result_
    check_estimates(found, LowRankGLS(1).fit(data.good()).result_, atol=1e-10)


def in_zarr_of_blocks(values: np.ndarray) -> da.Array:
    return da.from_array(values, chunks=(40, -1))


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("weights", ["rows", "cells", "equations"])
def test_weights(weights: str, holes: bool) -> None:
    data, rng = Spoiled(holes=holes), np.random.default_rng(1)
    shape = {"rows": 240, "cells": (240, 8), "equations": 8}[weights]
    w = rng.uniform(0.5, 2.0, size=shape)
    found = model(holes, 1, unusable="skip").fit(data.system(weights=w)).result_
    expected = model(holes, 1).fit(data.good(weights=w if weights == "rows" else w[..., GOOD])).result_
    check_estimates(found, expected)


def test_a_cell_and_a_row_of_weight_zero_are_not_observed() -> None:
    data, complete = Spoiled(), np.random.default_rng(3).normal(size=240)
    data.Y[:, 1], data.own[:, 1] = complete, 1 + complete
    data.Y[:, 4], data.own[:5, 4] = complete, 0.0
    w = np.ones((240, 8))
    w[:, 1] = w[:5, 4] = w[7:, 4] = 0.0
    cells = LowRankGLS(1, unusable="skip").fit(data.system(weights=w)).result_
    check_estimates(cells, LowRankGLS(1).fit(data.good(weights=w[:, GOOD])).result_)
    data = Spoiled()
    data.Y[10:13, 1] = 1.0
    data.own[10:13, 1] = 0.0
    rows = np.ones(240)
    rows[10:13] = 0.0
    by_rows = LowRankGLS(1, unusable="skip").fit(data.system(weights=rows)).result_
    check_estimates(by_rows, LowRankGLS(1).fit(data.good(weights=rows)).result_)


@pytest.mark.parametrize("holes", HOLES)
def test_compressed_and_appended_rows(holes: bool, tmp_path: Path) -> None:
    data = Spoiled(holes=holes)
    expected = model(holes, 1).fit(data.good()).result_
    compressed = data.system().compress()
    compressed.to_zarr(tmp_path / "c.zarr")
    parts = data.system(rows=slice(0, 200)).compress().append(data.system(rows=slice(200, None)))
    for each in (compressed, CompressedSystem.from_zarr(tmp_path / "c.zarr"), parts):
        found = model(holes, 1, unusable="skip").fit(each).result_
        check_estimates(found, expected, atol=1e-9)
        assert found.n_passes == 0
    fit = model(holes, 1, unusable="skip").fit(compressed).result_
    check_same(fit.cov("observed"), expected.cov("observed"), atol=1e-9)
    with pytest.raises(ValueError, match=r"whose cells have weights.*Fit the System itself"):
        model(True, 1, unusable="skip").fit(data.system(weights=np.full((240, 8), 2.0)).compress())


def test_what_only_skipped_equations_use_of_a_column_costs_no_digit() -> None:
    data = Spoiled(holes=True)
    data.Y[5:7, [j for j in range(8) if j != 4]] = np.nan  # rows 5 and 6 show e4 alone
    data.shared[5:7, 1] = 1e13
    expected = LowRankGLS(1, missing="em").fit(data.good()).result_
    for system in (data.system(), data.system().compress()):
        found = LowRankGLS(1, missing="em", unusable="skip").fit(system).result_
        check_estimates(found, expected, atol=1e-9)


def test_compressed_complete_rows_with_a_constant_response() -> None:
    rng = np.random.default_rng(0)
    X, Y = np.column_stack([np.ones(90), rng.normal(size=90)]), rng.normal(size=(90, 4))
    Y[:, 2] = 0.1
    found = LowRankGLS(0, unusable="skip").fit(System.from_arrays(Y, X).compress()).result_
    expected = LowRankGLS(0).fit(System.from_arrays(Y[:, [0, 1, 3]], X)).result_
    assert found.status.values.tolist() == ["ok", "ok", "constant", "ok"]
    check_same(found.params, expected.params, atol=1e-10)


def test_a_land_mask() -> None:
    rng = np.random.default_rng(2)
    land = rng.random(60) < 0.4
    X = np.column_stack([np.ones(400), rng.normal(size=(400, 2))])
    Y = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 60)) + rng.normal(size=(400, 60))
    sea = Y[:, ~land]
    Y[:, land] = np.nan
    places = [(i, j) for i in range(6) for j in range(10)]
    found = LowRankGLS(2, unusable="skip").fit(System.from_arrays(Y, X, equations=places)).result_
    expected = LowRankGLS(2).fit(System.from_arrays(sea, X)).result_
    assert (found.status.values == np.where(land, "no rows", "ok")).all()
    check_same(found.params, expected.params)
    check_same(found.sigma(), expected.sigma())
    assert (
        f"{land.sum()} of 60 equations skipped: " in found.summary()
        and f" and {land.sum() - 5} more" in found.summary()
    )


# ---------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize("holes", HOLES)
def test_skipped_equations_are_nan_in_every_result(holes: bool) -> None:
    found, expected, _ = both(holes, 1)
    assert found.equations == tuple(NAMES) and found.n_equations == 8
    assert found.regressors[:3] == ("const", "x", "z") and found.n_regressors == 11
    for name in ("params", "std_errors", "tvalues", "pvalues", "loadings", "idio_var", "r2", "adj_r2"):
        values = getattr(found, name)
        assert values["equation"].values.tolist() == (
            NAMES if values.ndim == 2 or values.dims[0] == "equation" else np.repeat(NAMES, 4).tolist()
        )
        assert np.isnan(values.values[np.isin(values["equation"], list(BAD))]).all(), name
        check_same(values, getattr(expected, name))
    for name in ("sigma", "own_cov", "cov", "conf_int", "coef_table"):
        check_same(getattr(found, name)(), getattr(expected, name)())
    check_same(found.sigma_diagonal, expected.sigma_diagonal)
    assert found.coef_table().index.equals(
        pd.MultiIndex.from_arrays(
            [found.params["equation"].values, found.params["regressor"].values], names=["equation", "regressor"]
        )
    )
    assert np.isnan(found.cov(equation="e4")).all() and found.cov(equation="e4").shape == (4, 4)
    np.testing.assert_array_equal(found.cov(equation="e5"), expected.cov(equation="e5"))
    if holes:
        assert (found.cells[GOOD] == expected.cells).all() and (found.cells[[1, 4, 6]] == 0).all()
    else:
        check_same(found.sigma_std_errors(), expected.sigma_std_errors())
        check_same(found.loadings_std_errors, expected.loadings_std_errors)


@pytest.mark.parametrize("holes", HOLES)
def test_covariances_read_the_rows_of_the_others(holes: bool) -> None:
    found, expected, data = both(holes, 1)
    for kind in ("robust", "hac", "observed", "huber-white", "kackar-harville"):
        check_same(found.cov(kind), expected.cov(kind))
    check_same(found.with_cov("robust", system=data.system()).std_errors, expected.with_cov("robust").std_errors)
    groups = np.arange(240) // 8
    check_same(found.cov("cluster", groups=groups), expected.cov("cluster", groups=groups))
    np.testing.assert_array_equal(found.cov("robust", equation="e3"), expected.cov("robust", equation="e3"))


@pytest.mark.parametrize("holes", HOLES)
def test_rows_are_predicted_with_nan_for_skipped_equations(holes: bool, tmp_path: Path) -> None:
    found, expected, data = both(holes, 1)
    system, good = data.system(), data.good()
    check_same(found.predict(system), expected.predict(good))
    check_same(
        found.predict(system, interval=0.9, kind="observation"),
        expected.predict(good, interval=0.9, kind="observation"),
    )
    check_same(found.residuals(system), expected.residuals(good))
    check_same(found.predict_given(system, interval=0.9), expected.predict_given(good, interval=0.9))
    some = found.predict_given(system, observed=["e0", "e1", "e2"])
    check_same(some, expected.predict_given(good, observed=["e0", "e2"]))
    check_same(found.impute(system), expected.impute(good))
    np.testing.assert_array_equal(found.factor_scores(system), expected.factor_scores(good))
    assert found.score(system) == expected.score(good) == found.score(good)
    new = np.column_stack([data.shared, data.own])[:7]
    frame = pd.DataFrame(new, columns=list(found.regressors))
    for each in (new, frame):
        made = found.predict(each)
        assert made.shape == (7, 8) and np.isnan(made[:, [1, 4, 6]]).all()
        np.testing.assert_allclose(made[:, GOOD], expected.predict(good)[:7], rtol=1e-12)
    np.testing.assert_array_equal(found.predict(good)[:, GOOD], expected.predict(good))
    found.impute(system, tmp_path / "filled.zarr")
    assert System.from_zarr(tmp_path / "filled.zarr").equations == good.equations
    with pytest.raises(ValueError, match="equations missing"):
        found.predict(data.system(rows=slice(0, 9)).__class__.from_arrays(data.Y[:, :2], data.shared))


def test_hypotheses_about_skipped_equations_are_refused_by_name() -> None:
    found, expected, _ = both(False, 1)
    assert found.wald_test("*:x = 0").statistic == expected.wald_test("*:x = 0").statistic
    assert found.wald_test("*:x = 0").df == 5
    R = np.zeros((1, 32))
    R[0, 2 * 4 + 1] = 1.0
    assert found.wald_test(R).statistic == expected.wald_test("e2:x = 0").statistic
    for hypotheses in (["e2:x = 0", "e4:x = 0"], {("e4", "x"): 1.0}, "e0:x = e4:x", np.eye(1, 32, 17)):
        with pytest.raises(ValueError, match=r"is about equation 'e4', which is skipped \(too few rows \(2 of 4\)\)"):
            found.wald_test(hypotheses)
    with pytest.raises(ValueError, match="e9"):
        found.wald_test("e9:x = 0")


@pytest.mark.parametrize("holes", HOLES)
def test_restrictions_are_about_the_others(holes: bool) -> None:
    found, expected, data = both(holes, 1, restrictions=["e2:x = e3:x", "*:z = 0.5"])
    check_estimates(found, expected)
    check_same(found.tvalues, expected.tvalues)
    assert found.n_restrictions == expected.n_restrictions == 6
    assert found.options["restrictions"] == ["e2:x = e3:x", "*:z = 0.5"] and found.options["unusable"] == "skip"
    with pytest.raises(ValueError, match=r"'e1:x = e3:x' is about equation 'e1', which is skipped \(no rows\)"):
        model(holes, 1, unusable="skip", restrictions="e1:x = e3:x").fit(data.system())


def test_a_ridge_may_name_columns_that_only_skipped_equations_use() -> None:
    data = Spoiled()
    found = LowRankGLS(1, unusable="skip", lam_B={"own[e1]": 2.0, "x": 1.0}).fit(data.system()).result_
    check_estimates(found, LowRankGLS(1, lam_B={"x": 1.0}).fit(data.good()).result_)
    with pytest.raises(ValueError, match="no equation has a regressor 'xx'"):
        LowRankGLS(1, unusable="skip", lam_B={"xx": 2.0}).fit(data.system())


def test_measures_and_the_bootstrap_are_of_the_others() -> None:
    found, expected, data = both(False, 1)
    for name in ("mcelroy_r2", "breusch_pagan", "lr_diagonal", "rank_test"):
        assert str(getattr(found, name)()) == str(getattr(expected, name)())
    xr.testing.assert_identical(found.system_r2(), expected.system_r2())
    for how in (
        {},
        {"method": "blocks", "n_blocks": 12},
        {"method": "blocks", "n_blocks": 12, "system": data.system()},
    ):
        one = found.bootstrap(9, seed=1, **how)
        other = expected.bootstrap(9, seed=1, **{k: v for k, v in how.items() if k != "system"})
        for name in ("params", "std_errors", "bias", "sigma"):
            check_same(getattr(one, name), getattr(other, name))
        check_same(one.conf_int(), other.conf_int())
        assert one.std_errors["equation"].values.tolist() == found.params["equation"].values.tolist()


def test_nested_fits_are_compared() -> None:
    small, _, _ = both(False, 1, restrictions="*:x = 0")
    large, expected, _ = both(False, 1)
    assert large.lr_test(small).df == 5
    assert large.lr_test(small).statistic > 0 and expected.n_parameters == large.n_parameters


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_saved_fit_knows_what_it_skipped(holes: bool, engine: Any, tmp_path: Path) -> None:
    found, expected, data = both(holes, 1, engine=engine)
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    for name in ("status", "params", "std_errors", "loadings", "r2"):
        xr.testing.assert_identical(getattr(opened, name), getattr(found, name))
    assert opened.summary() == found.summary() and opened.equations == found.equations
    check_same(opened.predict(data.system()), expected.predict(data.good()))
    check_same(opened.cov("robust", system=data.system()), expected.cov("robust"))
    assert "firm" not in xr.open_zarr(tmp_path / "fit.zarr", consolidated=False).dims


def test_a_summary_counts_them() -> None:
    found, _, _ = both(False, 1)
    said = "3 of 8 equations skipped: 'e1' (no rows), 'e4' (too few rows (2 of 4)), 'e6' (constant)"
    assert said in " ".join(found.summary().split())
    table = found.summary().split("Std errors")[1]
    assert "e5" in table and "nan" not in found.summary() and "'e4'" in table
    assert "3 of 8 equations skipped" in found._repr_html_()


def test_a_fit_that_varies_in_time(tmp_path: Path) -> None:
    data, segments = Spoiled(), np.arange(240) // 80
    covariance = TimeVarying(1, segments, 0.0)
    found: Any = LowRankGLS(covariance=covariance, unusable="skip").fit(data.system()).result_
    expected: Any = LowRankGLS(covariance=covariance).fit(data.good()).result_
    check_estimates(found, expected)
    check_same(found.loadings, expected.loadings)
    check_same(found.sigma(1), expected.sigma(1))
    check_same(found.cov("robust"), expected.cov("robust"))
    assert found.score(data.system(), segments) == expected.score(data.good(), segments)
    found.to_zarr(tmp_path / "fit.zarr")
    opened = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(opened.status, found.status)
    check_same(opened.predict(data.system()), expected.predict(data.good()))
    assert "3 of 8 equations skipped" in opened.summary() and "3 of 8 equations skipped" in opened._repr_html_()


def test_a_killed_fit_goes_on(tmp_path: Path) -> None:
    data, place = Spoiled(holes=True), tmp_path / "progress"
    system = data.system(in_zarr)
    passes = 0

    def stop(label: str, done: int, total: int) -> None:
        nonlocal passes
        passes += done == total
        if passes > 8:
            raise KeyboardInterrupt

    how: dict[str, Any] = {"missing": "em", "engine": "stream", "unusable": "skip", "checkpoint": place}
    with pytest.raises(KeyboardInterrupt):
        LowRankGLS(1, progress=stop, **how).fit(system)
    assert place.exists()
    found = LowRankGLS(1, **how).fit(system).result_
    assert not place.exists()
    check_estimates(found, LowRankGLS(1, missing="em", engine="stream").fit(data.good(in_zarr)).result_, atol=1e-9)


# ---------------------------------------------------------------------------------------------- every fit


def test_every_fit_has_a_status() -> None:
    rng = np.random.default_rng(1)
    X, Y = np.column_stack([np.ones(80), rng.normal(size=80)]), rng.normal(size=(80, 5))
    fit = LowRankGLS(0).fit(System.from_arrays(Y, X)).result_
    assert fit.status.dims == ("equation",) and fit.status["equation"].values.tolist() == list(fit.equations)
    assert (fit.status == "ok").all()
    Y[:, 1] = 2.0
    Y[:, 3] = X @ [1.0, 2.0]
    for engine in ("compress", "stream"):
        with pytest.warns(FitWarning, match="or use unusable='skip', which leaves out constant responses"):
            fit = LowRankGLS(0, engine=engine).fit(System.from_arrays(Y, X)).result_
        assert fit.status.values[[1, 3]].tolist() == ["constant", "on floor"], engine


def test_heywood_cases_are_on_the_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(200, 1))
    Y = factor * [1.0, 0.5, 0.4, 0.3] + rng.normal(size=(200, 4)) * [0.0, 0.9, 0.9, 0.9]
    with pytest.warns(FitWarning, match="Heywood"):
        fit = LowRankGLS(1).fit(System.from_arrays(Y, np.ones((200, 1)))).result_
    assert fit.status.values.tolist() == ["on floor", "ok", "ok", "ok"]
    fit.to_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(Fit.from_zarr(tmp_path / "fit.zarr").status, fit.status)


def test_a_constant_is_usable_where_its_regressors_do_not_reproduce_it() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 2))
    one = np.ones((100, 1))
    dummies = np.eye(2)[np.arange(100) % 2]
    Y = rng.normal(size=(100, 6))
    Y[:, 0] = Y[:, 1] = Y[:, 2] = 3.0
    Y[:, 3] = 0.0
    Xs = [x, np.hstack([one, x]), np.hstack([dummies, x]), x, x, np.hstack([one, x])]
    for engine in ("compress", "stream"):
        fit = LowRankGLS(0, engine=engine, unusable="skip").fit(System.from_arrays(Y, Xs)).result_
        assert fit.status.values.tolist() == ["ok", "constant", "constant", "constant", "ok", "ok"]
    compressed = LowRankGLS(0, unusable="skip").fit(System.from_arrays(Y, Xs).compress()).result_
    assert compressed.status.values.tolist() == fit.status.values.tolist()


def test_nothing_is_skipped_where_all_can_be_estimated() -> None:
    data = Spoiled(holes=True)
    found = LowRankGLS(1, missing="em", unusable="skip").fit(data.good()).result_
    expected = LowRankGLS(1, missing="em").fit(data.good()).result_
    xr.testing.assert_identical(found.params, expected.params)
    assert found.skipped is None and found.n_passes == expected.n_passes + 1
    assert "skipped" not in found.summary()


def test_a_plan_says_what_the_look_reads() -> None:
    data = Spoiled()
    plan = LowRankGLS(1, unusable="skip").plan(data.system())
    assert plan.look_bytes == 240 * 8 * 8 and "of responses before, for unusable='skip'" in str(plan)
    assert LowRankGLS(1).plan(data.system()).look_bytes == 0
    fitted = LowRankGLS(1, unusable="skip").fit(data.system())
    assert fitted.plan_.look_bytes == plan.look_bytes and fitted.plan_.n_equations == 5
    assert LowRankGLS(1, unusable="skip", missing="em").plan(data.system().compress()).look_bytes == 0


# ---------------------------------------------------------------------------------------------- refusals


def test_all_that_cannot_be_estimated_are_named() -> None:
    data = Spoiled(holes=True)
    with pytest.raises(
        ValueError,
        match=r"3 of 8 equations: 'e1' \(no rows\), 'e4' .*, 'e6' \(constant\)\..*or use unusable='skip'",
    ):
        LowRankGLS(1, missing="em").fit(data.system())
    Y = np.full((50, 9), np.nan)
    Y[:, 0] = np.random.default_rng(0).normal(size=50)
    with pytest.raises(ValueError, match=r"8 of 9 equations: 'y1' \(no rows\).*'y5' \(no rows\) and 3 more\."):
        LowRankGLS(0, missing="em").fit(System.from_arrays(Y, np.ones((50, 1))))
    with pytest.raises(ValueError, match=r"no equation can be estimated: 8 of 8 equations: 'y1'"):
        LowRankGLS(0, unusable="skip").fit(
            System.from_arrays(Y[:, 1:], np.ones((50, 1)), equations=[f"y{j}" for j in range(1, 9)])
        )


def test_complete_rows_that_are_too_few_for_some_equations() -> None:
    rng = np.random.default_rng(0)
    Xs = [rng.normal(size=(10, 2)), rng.normal(size=(10, 12)), rng.normal(size=(10, 3)), rng.normal(size=(10, 10))]
    Y = rng.normal(size=(10, 4))
    system = System.from_arrays(Y, Xs)
    with pytest.raises(
        ValueError, match=r"'y1' has 12 regressors.*2 of 4 equations: 'y1' \(too few rows \(10 of 12\)\)"
    ):
        LowRankGLS(0).fit(system)
    found = LowRankGLS(0, unusable="skip").fit(system).result_
    assert found.status.values.tolist() == ["ok", "too few rows (10 of 12)", "ok", "too few rows (10 of 11)"]
    check_same(found.params, LowRankGLS(0).fit(System.from_arrays(Y[:, ::2], Xs[::2])).result_.params)
    few = System.from_arrays(Y, [Xs[1]] * 4)
    with pytest.raises(ValueError, match=r"has 12 regressors but there are only 10 rows.*Drop regressors or add rows"):
        LowRankGLS(0, unusable="skip").plan(few)
    with pytest.raises(ValueError, match="no equation can be estimated"):
        LowRankGLS(0, unusable="skip").fit(few)


def test_values_that_no_sum_can_use_are_still_errors() -> None:
    data = Spoiled()
    data.own[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LowRankGLS(1, unusable="skip").fit(data.system())
    data = Spoiled()
    data.Y[7, 2] = np.inf
    with pytest.raises(ValueError, match="equation 'e2': infinite value at row 7"):
        LowRankGLS(1, unusable="skip").fit(data.system())
    data.Y[:, 2] = np.inf
    with pytest.raises(ValueError, match="equation 'e2': infinite value at row 0"):
        LowRankGLS(1, unusable="skip").fit(data.system())
    weights = np.ones(240)
    weights[9] = -1.0
    lazy = da.from_array(weights, chunks=50)
    with pytest.raises(ValueError, match="negative value at row 9"):
        LowRankGLS(1, unusable="skip").fit(Spoiled().system(weights=lazy))
