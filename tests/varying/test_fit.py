"""Factors that vary in time, through the estimator: labels, limits, reads, files, messages."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.base
import xarray as xr

from lrgls_dask import Fit, FitWarning, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.varying.estimate import fit_time_varying
from support.counted import counted
from support.fits import fit
from support.segments import TIGHT, covariance, cut, drifting
from support.systems import dask_rows, simulate

DATA, _ = drifting(8, 60)
YEARS = np.repeat(np.arange(2001, 2009), 60)


def made(bandwidth: Any = 2.5, rank: int = 1, **options: Any) -> TimeVaryingFit:
    model = LowRankGLS(covariance=TimeVarying(rank, YEARS, bandwidth), **(TIGHT | options))
    return model.fit(DATA.system(dask_rows(100))).result_


def test_it_is_the_fit_of_the_segments_with_labels() -> None:
    found, bare = made(), fit_time_varying(cut(DATA, 8), 1, 2.5, **TIGHT)
    np.testing.assert_allclose(found.params.values, bare.coefficients, rtol=1e-8)
    assert found.loadings.dims == ("segment", "equation", "factor") and found.idio_var.dims == ("segment", "equation")
    assert found.loadings["segment"].values.tolist() == list(range(2001, 2009))
    np.testing.assert_allclose(found.loadings.values, bare.loadings, rtol=1e-6)
    F, d = found.loadings.sel(segment=2004), found.idio_var.sel(segment=2004)
    expected = F.values @ F.values.T + np.diag(d)
    np.testing.assert_allclose(found.sigma(2004).sel(equation="y2").values, expected[2], rtol=1e-10)
    assert found.loglik == pytest.approx(bare.loglik, rel=1e-12)
    assert found.rows.tolist() == [60] * 8 and found.n_obs == 480
    assert found.n_parameters == pytest.approx(18 + bare.n_sigma_parameters)
    assert found.bic == pytest.approx(-2 * found.loglik + np.log(480) * found.n_parameters)
    np.testing.assert_allclose(found.std_errors.values, np.sqrt(np.diag(covariance(bare))), rtol=1e-7)
    assert found.params["equation"].values[:4].tolist() == ["y0", "y0", "y0", "y1"]
    np.testing.assert_allclose(found.coef_table()["t"], found.params.values / found.std_errors.values)


def test_an_infinite_bandwidth_is_the_static_fit() -> None:
    found, static = made(np.inf), fit(DATA.system(), 1)
    assert found.loglik == pytest.approx(static.loglik, abs=1e-8)
    assert found.aic == pytest.approx(static.aic, abs=1e-6)
    np.testing.assert_allclose(found.sigma(2008).values, static.sigma().values, rtol=1e-6)
    np.testing.assert_allclose(found.std_errors.values, static.std_errors.values, rtol=1e-6)
    np.testing.assert_allclose(found.conf_int(0.1).values, static.conf_int(0.1).values, rtol=1e-6)


def test_bandwidth_zero_gives_every_segment_a_sigma_of_its_own_rows() -> None:
    found = made(0.0)
    part = DATA.take(YEARS == 2003).dense()
    S = part.S(found.params.values)
    G = np.linalg.inv(found.sigma(2003).values)
    slope = (G - G @ S @ G) @ found.loadings.sel(segment=2003).values
    assert np.abs(slope * np.sqrt(np.diag(S))[:, None]).max() < 1e-6
    assert found.loglik > made(2.5).loglik > made(np.inf).loglik


def test_the_bandwidth_is_chosen_by_segments_left_out() -> None:
    found = made("cv")
    table = found.selection
    assert table.attrs["criterion"] == "held_out_nll"
    assert table.index.tolist() == [1.5, 2.25, 3.375, 5.0625, 7.59375, np.inf]
    assert table["held_out_nll"].idxmin() == found.bandwidth < np.inf
    given = made(found.bandwidth)
    assert given.loglik == pytest.approx(found.loglik, rel=1e-12) and given.selection is None
    assert "by held-out likelihood" in found.summary() and "by held-out" not in given.summary()


def test_one_segment_is_a_static_fit() -> None:
    data = simulate("own")
    one = LowRankGLS(covariance=TimeVarying(2, np.zeros(240)), **TIGHT).fit(data.system()).result_
    assert one.loglik == pytest.approx(fit(data.system(), 2).loglik, abs=1e-8)


def test_each_chunk_is_read_once() -> None:
    data = simulate("mixed", n=230)
    store = counted(data)
    system = System.from_zarr(store)
    model = LowRankGLS(covariance=TimeVarying(1, np.arange(230) // 46))
    plan = model.plan(system)
    assert (plan.engine, plan.passes) == ("compress", 1)
    assert not store.of("Y")
    found = model.fit(system).result_
    assert found.std_errors.notnull().all()
    assert store.of("X") == store.of("Y") == {1: 23}
    assert (found.n_passes, model.rank_) == (1, 1)


def test_segments_by_name() -> None:
    time = pd.date_range("2001-01-31", periods=480, freq="ME")
    X = xr.DataArray(DATA.X, {"time": time, "name": ["c", "a", "b"]}, ("time", "name"))
    Y = xr.DataArray(DATA.Y, {"time": time, "equation": list("uvwxyz")}, ("time", "equation"))
    decade = xr.DataArray(time.year // 10, {"time": time}, "time")
    ds = xr.Dataset({"Y": Y, "X": X, "decade": decade})
    system = System.from_xarray(ds, "Y", ["X"], obs="time", groups="decade")

    def segments(labels: Any) -> list[Any]:
        found = LowRankGLS(covariance=TimeVarying(1, labels, 2.0)).fit(system).result_
        return found.segments.tolist()

    assert segments("time.year") == list(range(2001, 2041))
    assert segments("groups") == segments(ds["decade"]) == segments(decade.to_series()) == [200, 201, 202, 203, 204]
    dates = LowRankGLS(covariance=TimeVarying(1, time.to_period("Y").to_timestamp(), 2.0)).fit(system).result_
    assert dates.segments[0] == pd.Timestamp("2001-01-01") and isinstance(dates.segments, pd.DatetimeIndex)
    for name in ("month", "time.fortnight", "year"):
        with pytest.raises(ValueError, match=rf"segments='{name}' is not known .* 'time' or a part of its dates, 'gr"):
            segments(name)
    with pytest.raises(ValueError, match="segments must be sorted: row 12 has 1 after 12"):
        segments("time.month")
    late = decade.assign_coords(time=time + pd.Timedelta("1D"))
    with pytest.raises(
        ValueError,
        match=r"segments and the system have .* along 'time' \(.*2001-02-01.* against .*2001-01.* position 0",
    ):
        segments(late)


@pytest.mark.parametrize("bandwidth", [2.0, np.inf, "cv"])
def test_saved_and_opened(tmp_path: Any, bandwidth: Any) -> None:
    found = made(bandwidth)
    found.to_zarr(tmp_path / "fit.zarr")
    again = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(again.loadings, found.loadings)
    xr.testing.assert_identical(again.cov(), found.cov())
    assert (again.summary(), repr(again)) == (found.summary(), repr(found))
    assert (again.selection is None) == (found.selection is None)
    pd.testing.assert_frame_equal(again.trace, found.trace)
    pd.testing.assert_index_equal(again.segments, found.segments)
    with pytest.raises(ValueError, match="no stored fit"):
        Fit.from_zarr(tmp_path / "fit.zarr")
    with pytest.raises(FileExistsError):
        found.to_zarr(tmp_path / "fit.zarr")


def test_without_its_covariance_an_opened_fit_says_so() -> None:
    found = replace(made(), compressed_segments=())
    with pytest.raises(ValueError, match="saved without the covariance of its 18 coefficients, more than 5,000"):
        _ = found.std_errors
    assert found.params.shape == (18,)


def test_prediction() -> None:
    found, system = made(), DATA.system()
    fitted = found.predict(system, interval=0.9)
    expected = DATA.Y - DATA.dense().residuals(found.params.values)
    np.testing.assert_allclose(fitted["predicted"].values, expected, rtol=1e-10)
    x, V = DATA.X[7], found.cov().values[3:6, 3:6]
    assert fitted["std_error"].values[7, 1] == pytest.approx(np.sqrt(x @ V @ x))
    model = LowRankGLS(covariance=TimeVarying(1, YEARS, 2.0)).fit(system)
    np.testing.assert_allclose(model.predict(system).values, DATA.Y - model.result_.residuals(system).values)
    for ask in (lambda: found.predict(system, interval=0.9, kind="observation"), lambda: found.factor_scores(system)):
        with pytest.raises(ValueError, match=r"one Sigma for each segment, and rows do not say which"):
            ask()


def test_a_ridge_penalises_as_in_any_fit() -> None:
    found, static = made(np.inf, lam_B=5.0), fit(DATA.system(), 1, lam_B=5.0)
    np.testing.assert_allclose(found.params.values, static.params.values, rtol=1e-6, atol=1e-8)
    assert found.lam_B == 5.0


def test_a_fit_cut_short_says_so() -> None:
    with pytest.warns(FitWarning, match="not converged after 1 sweep:"):
        short = made(max_sweeps=1)
    assert short.termination.value == "max_sweeps"


def test_parameters_can_be_read_and_cloned() -> None:
    model = LowRankGLS(covariance=TimeVarying(2, YEARS, 3.0))
    assert repr(model) == "LowRankGLS(covariance=TimeVarying(rank=2, bandwidth=3.0))"
    copy = sklearn.base.clone(model)
    np.testing.assert_array_equal(copy.covariance.segments, YEARS)
    with pytest.raises(AttributeError, match="has not been fitted"):
        _ = copy.params_


# ---------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "bandwidth must be 0 or more, in segments; got -1", {"bandwidth": -1}),
        (ValueError, "bandwidth must be 0 or more, in segments; got nan", {"bandwidth": float("nan")}),
        (ValueError, "bandwidth must be a number of segments or 'cv'; got 'bic'", {"bandwidth": "bic"}),
        (TypeError, "bandwidth must be a number of segments or 'cv'; got None", {"bandwidth": None}),
        (ValueError, "rank must be at least 0; got -2", {"rank": -2}),
        (TypeError, "rank must be an integer; got 'cv'", {"rank": "cv"}),
    ],
)
def test_options_of_the_structure(error: type[Exception], text: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=re.escape(text)):
        TimeVarying(**({"rank": 1, "segments": YEARS} | options))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank": 1}, "covariance=TimeVarying(...) says what the factors are, so rank must keep its default; got 1"),
        ({"engine": "stream"}, "compresses every segment by itself, which engine='stream' does not"),
        ({"algorithm": "fgls"}, "covariance=TimeVarying(...) takes no algorithm; got 'fgls'. Leave it at 'als'"),
        ({"debiased": True}, "covariance=TimeVarying(...) takes no debiased; got True"),
        (
            {"rank": "bic"},
            "covariance=TimeVarying(...) says what the factors are, so rank must keep its default; got 'b",
        ),
        ({"rank": "cv"}, "says what the factors are, so rank must keep its default; got 'cv'. Drop rank, or use cova"),
        ({"lam_F": 0.5}, "says what the factors are, so lam_F must keep its default; got 0.5"),
        ({"sigma_step": "pca"}, "says what the factors are, so sigma_step must keep its default; got 'pca'"),
        ({"algorithm": "em"}, "algorithm='em' does not go with covariance=TimeVarying(rank=1, bandwidth='cv'). Use al"),
        ({"accelerate": False}, "accelerate=False is for algorithm='em'; got algorithm='als'"),
        ({"cg_tol": 1e-9}, "covariance=TimeVarying(...) takes no cg_tol; got 1e-09. Leave it at None"),
        ({"cg_maxit": 20}, "covariance=TimeVarying(...) takes no cg_maxit; got 20. Leave it at 500"),
        ({"checkpoint": "kept.zarr"}, "covariance=TimeVarying(...) takes no checkpoint; got 'kept.zarr'"),
    ],
)
def test_options_of_the_estimator(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        LowRankGLS(covariance=TimeVarying(1, YEARS), **options)


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        (YEARS[:-1], "segments must hold one label for each of 480 rows; found shape (479,)"),
        (YEARS[::-1], "segments must be sorted: row 60 has 2007 after 2008"),
        (np.where(YEARS == 2002, np.nan, YEARS), "segments: the label of row 60 is missing"),
        ("year", "segments='year' is not known to this system, which knows (N,) labels. Pass"),
    ],
)
def test_labels_that_do_not_fit(segments: Any, text: str) -> None:
    model = LowRankGLS(covariance=TimeVarying(1, segments))
    for use in (model.plan, model.fit):
        with pytest.raises(ValueError, match=re.escape(text)):
            use(DATA.system())


def test_systems_that_do_not_fit() -> None:
    model = LowRankGLS(covariance=TimeVarying(1, YEARS, 2.0))
    with pytest.raises(ValueError, match="compressed system has none left to tell apart"):
        model.fit(DATA.system().compress())
    with pytest.raises(ValueError, match="rank 4 is more than 6 equations identify"):
        LowRankGLS(covariance=TimeVarying(4, YEARS, 2.0)).fit(DATA.system())
    with pytest.raises(MemoryError, match=r"8 segments apart .*needs .* the limit is 0\.95 MiB\..*fewer, longer seg"):
        LowRankGLS(covariance=TimeVarying(1, YEARS), memory_limit="1MB").plan(DATA.system())
    weights = np.where(YEARS == 2005, 0.0, 1.0)
    for wrap in (np.asarray, dask_rows(100)):
        with pytest.raises(ValueError, match="segments: 2005 is empty, all its rows have weight 0"):
            model.fit(replace(DATA, weights=weights).system(wrap))
    with pytest.raises(KeyError, match="no segment 1999; the first are 2001, 2002"):
        made().sigma(1999)


def test_incomplete_rows_are_dropped_from_their_segments() -> None:
    data, rng = simulate("own", n=240), np.random.default_rng(0)
    segments, Y = np.repeat(np.arange(6), 40), data.Y.copy()
    Y[rng.choice(240, 20, replace=False), rng.integers(0, 6, 20)] = np.nan
    kept = ~np.isnan(Y).any(axis=1)
    dropped = LowRankGLS(covariance=TimeVarying(1, segments=segments, bandwidth=2.0), missing="drop")
    subset = LowRankGLS(covariance=TimeVarying(1, segments=segments[kept], bandwidth=2.0))
    found = dropped.fit(System.from_arrays(Y, data.Xs)).result_
    wanted = subset.fit(System.from_arrays(Y[kept], [x[kept] for x in data.Xs])).result_
    assert found.n_obs == 220
    np.testing.assert_allclose(found.params.values, wanted.params.values, rtol=1e-9)
