"""Prediction: intervals against dense formulas, new data by label, one read, any chunking, any scheduler."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from distributed import Client

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.results.evidence import StreamedSums
from support.counted import counted
from support.fits import fit
from support.systems import Data, dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

KINDS = ["own", "shared", "mixed"]
K = 6
NEW = {kind: simulate(kind, n=90, seed=9, weighted=True) for kind in KINDS}


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    return {kind: fit(simulate(kind, n=120).system()) for kind in KINDS}


def dense_interval(found: Fit, new: Data, noise: bool, coverage: float) -> dict[str, np.ndarray]:
    """Row by row and equation by equation, from the full covariance of a Kronecker product."""
    V = simulate(new.kind, n=120).dense().cov(found.sigma().values)
    edges = np.cumsum([0, *(len(c) for c in new.columns)])
    mean, error = np.empty((90, K)), np.empty((90, K))
    for j, X in enumerate(new.Xs):
        block = V[edges[j] : edges[j + 1], edges[j] : edges[j + 1]]
        for i, x in enumerate(X):
            mean[i, j] = x @ found.params.values[edges[j] : edges[j + 1]]
            error[i, j] = x @ block @ x + (found.sigma().values[j, j] / new.weights[i] if noise else 0.0)
    error = np.sqrt(error)
    half = scipy.stats.t.ppf(0.5 + coverage / 2, [120 - len(c) for c in new.columns]) * error
    return {"predicted": mean, "std_error": error, "lower": mean - half, "upper": mean + half}


# ---------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("kind", ["mean", "observation"])
@pytest.mark.parametrize("design", KINDS)
def test_intervals_are_the_dense_ones(fits: dict[str, Fit], design: str, kind: Any) -> None:
    new = NEW[design]
    made = fits[design].predict(new.system(dask_rows(17)), interval=0.9, kind=kind)
    assert all(isinstance(made[name].data, da.Array) for name in made)
    assert made.attrs == {"interval": 0.9, "kind": kind}
    for name, expected in dense_interval(fits[design], new, kind == "observation", 0.9).items():
        np.testing.assert_allclose(made[name].values, expected, rtol=1e-9, atol=1e-11, err_msg=name)


def test_mean_interval_of_an_indicator_row_is_that_of_the_coefficient(fits: dict[str, Fit]) -> None:
    found = fits["shared"]
    made = found.predict(np.eye(4), interval=0.95)
    bounds = found.conf_int(alpha=0.05).values.reshape(K, 4, 2)
    np.testing.assert_allclose(made["lower"].values, bounds[:, :, 0].T, rtol=1e-10)
    np.testing.assert_allclose(made["upper"].values, bounds[:, :, 1].T, rtol=1e-10)
    np.testing.assert_allclose(made["predicted"].values, found.params.values.reshape(K, 4).T, rtol=1e-14)


def test_without_weights_the_weight_is_one_and_weight_zero_says_nothing(fits: dict[str, Fit]) -> None:
    new, weights = NEW["shared"], np.ones(90)
    weights[7] = 0.0
    bare = fits["shared"].predict(new.X, interval=0.9, kind="observation")
    made = fits["shared"].predict(System.from_arrays(new.Y, new.X, weights=weights), interval=0.9, kind="observation")
    others = np.arange(90) != 7
    np.testing.assert_array_equal(made["std_error"].values[others], bare["std_error"].values[others])
    assert np.isinf(made["std_error"].values[7]).all() and (made["lower"].values[7] == -np.inf).all()
    mean = fits["shared"].predict(System.from_arrays(new.Y, new.X, weights=weights), interval=0.9)
    assert np.isfinite(mean["std_error"].values).all()


def test_units_of_the_columns_do_not_matter() -> None:
    data, scale = simulate("shared", n=120), np.array([1.0, 1e7, 1e-7, 1.0])
    plain = fit(data.system()).predict(data.X, interval=0.9)["std_error"].values
    scaled = fit(System.from_arrays(data.Y, data.X * scale)).predict(data.X * scale, interval=0.9)["std_error"].values
    np.testing.assert_allclose(scaled, plain, rtol=1e-7)


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say() -> None:
    """Of the mean and of new responses, at N = 60, over 90 samples of 10 new rows and 4 equations."""
    hits = {"mean": [], "observation": []}
    rng = np.random.default_rng(5)
    b, F, sd = rng.normal(size=(3, 4)), rng.normal(size=(4, 1)), np.array([0.5, 0.8, 1.0, 0.7])
    X, new = (np.column_stack([np.ones(n), rng.normal(size=(n, 2))]) for n in (60, 10))
    for _ in range(90):
        errors = [rng.normal(size=(n, 1)) @ F.T + sd * rng.normal(size=(n, 4)) for n in (60, 10)]
        found = LowRankGLS(1).fit(System.from_arrays(X @ b + errors[0], X)).result_
        for kind, truth in (("mean", new @ b), ("observation", new @ b + errors[1])):
            made = found.predict(new, interval=0.9, kind=kind)
            hits[kind].append(((made["lower"] <= truth) & (truth <= made["upper"])).values.mean())
    for kind, found_hits in hits.items():
        share, error = np.mean(found_hits), np.std(found_hits) / np.sqrt(len(found_hits))
        # Sigma by maximum likelihood lacks the factor N / (N - p): 0.9 becomes 0.887
        assert abs(share - 0.887) < 4 * error < 0.08, (kind, share, error)


@pytest.mark.parametrize("interval", [0, 1, -0.5, 95, True, "0.9", np.nan])
def test_a_coverage_lies_between_0_and_1(fits: dict[str, Fit], interval: Any) -> None:
    for act in (fits["shared"].predict, fits["shared"].predict_given):
        with pytest.raises(ValueError, match=f"interval is a coverage .*; got {interval!r}"):
            act(NEW["shared"].system(), interval=interval)


def test_kinds_are_named(fits: dict[str, Fit]) -> None:
    with pytest.raises(ValueError, match="kind must be 'mean' or 'observation'; got 'median'"):
        fits["shared"].predict(NEW["shared"].X, interval=0.9, kind="median")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="'observation' or 'mean' or 'error'; got 'median'"):
        fits["shared"].predict_given(NEW["shared"].system(), kind="median")  # type: ignore[call-overload]


def test_an_interval_needs_what_standard_errors_need(fits: dict[str, Fit]) -> None:
    poor = dataclasses.replace(fits["shared"], evidence=StreamedSums(None, None), system=None)
    with pytest.raises(ValueError, match="standard errors need X'X"):
        poor.predict(NEW["shared"].X, interval=0.9)
    with pytest.raises(ValueError, match="standard errors need X'X"):
        poor.predict_given(NEW["shared"].system(), interval=0.9)
    assert poor.predict(NEW["shared"].X).shape == (90, K)
    assert "std_error" in poor.predict_given(NEW["shared"].system(), interval=0.9, kind="error")


def test_a_saved_fit_predicts_the_same(fits: dict[str, Fit], tmp_path: Any) -> None:
    fits["own"].to_zarr(tmp_path / "f.zarr")
    again = Fit.from_zarr(tmp_path / "f.zarr").predict(NEW["own"].system(), interval=0.9)
    xr.testing.assert_identical(again.compute(), fits["own"].predict(NEW["own"].system(), interval=0.9).compute())


# ---------------------------------------------------------------------------------- chunks, reads, schedulers


@pytest.mark.parametrize("wrap", [dask_rows((1, 40, 3, 46)), dask_rows(7), zarr_rows(13)], ids=["ragged", "7", "zarr"])
@pytest.mark.usefixtures("every_chunk_a_block")
def test_chunks_do_not_show(fits: dict[str, Fit], wrap: Any, tmp_path: Any) -> None:
    plain = fits["mixed"].predict(NEW["mixed"].system(), interval=0.9, kind="observation").compute()
    made = fits["mixed"].predict(NEW["mixed"].system(wrap), interval=0.9, kind="observation")
    heights = made.chunks["obs"]
    assert len(heights) > 1 and set(heights[:-1]) == {heights[0]} and heights[-1] <= heights[0]
    xr.testing.assert_allclose(made.compute(), plain, rtol=1e-12)
    made.to_zarr(tmp_path / "p.zarr", zarr_format=2)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "p.zarr").compute().drop_attrs(), made.compute().drop_attrs())


@pytest.mark.usefixtures("small_blocks")
def test_rows_in_memory_are_cut_evenly(fits: dict[str, Fit]) -> None:
    heights = fits["mixed"].predict(NEW["mixed"].system()).chunks[0]
    assert len(heights) > 10 and len(set(heights[:-1])) == 1


@pytest.mark.usefixtures("every_chunk_a_block")
@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic")
def test_everything_computed_together_reads_each_chunk_once() -> None:
    data = simulate("mixed", n=230)
    found, store = fit(data.system()), counted(data)
    system = System.from_zarr(store)
    dask.compute(*found.predict(system, interval=0.9, kind="observation").data_vars.values())
    assert (store.of("X"), store.of("Y")) == ({1: 23}, {})
    store.gets.clear()
    dask.compute(*found.predict_given(system, interval=0.9, observed=["y1"]).data_vars.values())
    assert store.of("X") == store.of("Y") == {1: 23}
    store.gets.clear()
    found.factor_scores(system).compute()
    assert store.of("X") == store.of("Y") == {1: 23}
    store.gets.clear()
    both = found.predict(system, interval=0.9).assign(scores=found.factor_scores(system), left=found.residuals(system))
    both.compute()
    assert store.of("X") == store.of("Y") == {1: 23}


def test_a_cluster_gives_the_same(fits: dict[str, Fit], client: Client) -> None:
    system = NEW["mixed"].system(dask_rows(20))
    found = fits["mixed"]
    lazy = found.predict_given(system, observed=["y0"], interval=0.9).assign(scores=found.factor_scores(system))
    lazy = lazy.assign(wide=found.predict(system, interval=0.9)["upper"])
    xr.testing.assert_allclose(lazy.compute(), lazy.compute(scheduler="synchronous"), rtol=1e-13)


# ---------------------------------------------------------------------------------- new data without responses


def new_dataset(time: int = 90) -> xr.Dataset:
    rng = np.random.default_rng(3)
    return xr.Dataset(
        {
            "ret": (("time", "industry"), rng.normal(size=(time, 3))),
            "one": ("time", np.ones(time)),
            "lag": (("industry", "time"), rng.normal(size=(3, time))),
            "macro": (("time", "series"), rng.normal(size=(time, 2))),
            "lags": (("time", "industry", "order"), rng.normal(size=(time, 3, 2))),
            "unused": ("time", rng.normal(size=time)),
        },
        coords={
            "time": pd.date_range("2001-01-31", periods=time, freq="ME"),
            "industry": ["a", "b", "c"],
            "series": ["cpi", "gdp"],
            "order": [1, 2],
        },
    )


X_NAMES = ["one", "lag", "macro", "lags"]


@pytest.fixture(scope="module")
def labelled() -> tuple[Fit, xr.Dataset]:
    ds = new_dataset()
    return fit(System.from_xarray(ds, "ret", X_NAMES, obs="time", equation="industry"), 0), ds


@pytest.mark.parametrize("chunk", [{}, {"time": 31}, {"time": 40, "industry": 1, "order": 1}], ids=["memory", "a", "b"])
def test_a_dataset_is_told_apart_by_names_and_dims(labelled: tuple[Fit, xr.Dataset], chunk: Any) -> None:
    found, ds = labelled
    system = System.from_xarray(ds, "ret", X_NAMES, obs="time", equation="industry")
    assert found.regressors[:2] == ("one", "lag[a]")
    shuffled = ds.isel(industry=[2, 0, 1]).drop_vars("ret")[["lags", "macro", "lag", "one", "unused"]]
    made = found.predict(shuffled.chunk(chunk) if chunk else shuffled)
    xr.testing.assert_allclose(made.compute(), found.predict(system).compute(), rtol=1e-12)
    assert made["time"].equals(ds["time"]) and made.dims == ("time", "industry")


def test_a_few_rows_are_enough(labelled: tuple[Fit, xr.Dataset]) -> None:
    found, ds = labelled
    few = ds[X_NAMES].isel(time=slice(0, 2))
    np.testing.assert_allclose(found.predict(few).values, found.predict(ds).values[:2], rtol=1e-12)


def test_a_mapping_of_regressors_and_only_some_equations_of_a_variable() -> None:
    ds = new_dataset()
    x = {"a": ["one", "lag"], "b": ["one"], "c": ["one", "lag", "unused"]}
    found = fit(System.from_xarray(ds, "ret", x, obs="time", equation="industry"), 0)
    expected = found.predict(System.from_xarray(ds, "ret", x, obs="time", equation="industry")).values
    np.testing.assert_allclose(found.predict(ds).values, expected, rtol=1e-12)
    np.testing.assert_allclose(found.predict(ds.sel(industry=["c", "a"])).values, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"lack regressors 'lag.c.' of the fit"):
        found.predict(ds.sel(industry=["a", "b"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars(["one", "macro"]), r"lack regressors 'one', 'cpi', 'gdp' of the fit; they have 'ret'"),
        (lambda ds: ds.assign(lag=ds["lag"].isel(industry=0, drop=True)), r"lack regressors 'lag.a.', 'lag.b.', 'lag"),
        (lambda ds: ds.assign(one=ds["one"] * ds["ret"]), r"lack regressors 'one' of"),
        (lambda ds: ds.rename(time="t"), "have dims 't', .* but must have 'time'"),
        (lambda ds: ds.isel(time=slice(0)), "have no rows"),
        (lambda ds: ds.assign(one=ds["one"].astype(str)), r"data\['one'\] has dtype .*U"),
    ],
)
def test_a_dataset_that_does_not_match(labelled: tuple[Fit, xr.Dataset], change: Callable, message: str) -> None:
    found, ds = labelled
    with pytest.raises((ValueError, TypeError), match=message):
        found.predict(change(ds))


@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(17), zarr_rows(17)], ids=["numpy", "dask", "zarr"])
@pytest.mark.parametrize("design", ["own", "mixed"])
def test_an_array_in_the_order_of_the_regressors(fits: dict[str, Fit], design: str, wrap: Any) -> None:
    new, found = NEW[design], fits[design]
    made = found.predict(wrap(new.X), interval=0.9)
    expected = found.predict(new.system(), interval=0.9)
    for name in made:
        np.testing.assert_allclose(made[name].values, expected[name].values, rtol=1e-12)


@pytest.mark.parametrize("lazy", [False, True], ids=["pandas", "dask"])
def test_a_frame_in_any_order(fits: dict[str, Fit], lazy: bool) -> None:
    new, found = NEW["own"], fits["own"]
    frame = pd.DataFrame(new.X, columns=pd.Index(found.regressors), index=np.arange(90) * 10)
    frame = frame[frame.columns[::-1]].assign(y2="text that is no number, but a response")
    made = found.predict(dd.from_pandas(frame, npartitions=4) if lazy else frame)
    np.testing.assert_allclose(made.values, found.predict(new.X).values, rtol=1e-12)
    assert lazy or made["obs"].values.tolist() == frame.index.tolist()


def test_a_labelled_array_in_any_order(fits: dict[str, Fit]) -> None:
    new, found = NEW["own"], fits["own"]
    labels = list(found.regressors)
    array = xr.DataArray(new.X, {"name": labels}, ("obs", "name"))
    made = found.predict(array.isel(name=slice(None, None, -1)))
    np.testing.assert_allclose(made.values, found.predict(new.X).values, rtol=1e-12)


@pytest.mark.parametrize("lazy", [False, True], ids=["pandas", "dask"])
def test_a_frame_that_does_not_match(fits: dict[str, Fit], lazy: bool) -> None:
    frame = pd.DataFrame(NEW["mixed"].X, columns=[*fits["mixed"].regressors[:-2], "dividend", "yield"])
    given = dd.from_pandas(frame, npartitions=2) if lazy else frame
    with pytest.raises(ValueError, match="lack 'x6', 'x7' and have 'dividend', 'yield' besides"):
        fits["mixed"].predict(given)
    with pytest.raises(ValueError, match="columns of the data must be unique; 'x0' is there 2 times"):
        fits["mixed"].predict(frame.rename(columns={"yield": "x0"}))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((5, 6)), "have 6 columns but the fit 8 regressors: 'x6', 'x7' missing"),
        (np.ones((5, 9)), "have 9 columns but the fit 8 regressors: 1 extra after 'x7'"),
        (np.ones((0, 8)), "have no rows"),
        (np.ones((5, 8), dtype=complex), "complex"),
        ("X.zarr", "data is a str"),
    ],
)
def test_an_array_that_does_not_match(fits: dict[str, Fit], X: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        fits["mixed"].predict(X)


def test_a_system_with_other_regressors_is_refused_by_name(fits: dict[str, Fit]) -> None:
    new = NEW["shared"]
    other = System.from_arrays(new.Y, new.X, regressors=["x0", "x1", "oil", "gold"])
    message = "regressors missing 'x2', 'x3', extra 'oil', 'gold'"
    for act in (fits["shared"].predict, fits["shared"].residuals, fits["shared"].factor_scores):
        with pytest.raises(ValueError, match=re.escape(message)):
            act(other)
    with pytest.raises(TypeError, match="a compressed system holds none of the rows"):
        fits["shared"].predict(new.system().compress())
