"""What takes neighbouring rows for neighbours in time asks their labels, wherever these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.data.labels import check_ascending

N, K = 120, 6
DAYS = pd.date_range("2000-01-01", periods=N, name="time")
SHUFFLED = np.random.default_rng(5).permutation(N)
SWAPPED = np.r_[0:60, 61, 60, 62:N]

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")


def series() -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelated Y (N, K) and X (N, 2)."""
    rng = np.random.default_rng(1)
    e, x = rng.normal(size=(N, K)) + rng.normal(size=(N, 1)), rng.normal(size=N)
    for t in range(1, N):
        e[t] += 0.8 * e[t - 1]
        x[t] += 0.8 * x[t - 1]
    return e + x[:, None], np.column_stack([np.ones(N), x])


Y, X = series()


def frame(labels: Any, order: Any) -> System:
    made, x = pd.DataFrame(Y, index=labels), pd.DataFrame(X, index=labels, columns=["c", "x"])
    return System.from_arrays(made.iloc[order], x.iloc[order])


def dataset(labels: Any, order: Any, *, chunked: bool = False) -> System:
    variables = {"y": (("time", "unit"), Y), "c": ("time", X[:, 0]), "x": ("time", X[:, 1])}
    ds = xr.Dataset(variables, {"time": labels}).isel(time=order)
    ds = ds.chunk({"time": 17}) if chunked else ds
    return System.from_xarray(ds, "y", ["c", "x"], obs="time", equation="unit")


def stored(labels: Any, order: Any, path: Any) -> System:
    frame(labels, order).to_zarr(path / "s", row_chunk=13)
    return System.from_zarr(path / "s")


MAKERS: dict[str, Callable[[Any, Any, Any], System]] = {
    "pandas": lambda labels, order, path: frame(labels, order),
    "xarray": lambda labels, order, path: dataset(labels, order),
    "dask": lambda labels, order, path: dataset(labels, order, chunked=True),
    "zarr": stored,
}
ASKS: dict[str, Callable[[System], Any]] = {
    "kind='hac'": lambda system: LowRankGLS(1).fit(system).result_.cov("hac", bandwidth=3),
    "kind='hac' streamed": lambda system: LowRankGLS(1, engine="stream").fit(system).result_.with_cov("hac"),
    "kind='hac' segments": lambda system: (
        LowRankGLS(covariance=TimeVarying(1, np.arange(N) // 40)).fit(system).result_.with_cov("hac", bandwidth=3)
    ),
    "method='blocks'": lambda system: LowRankGLS(1).fit(system).result_.bootstrap(3, "blocks", seed=1),
    "folds='blocks'": lambda system: LowRankGLS("cv", folds="blocks", n_folds=3).fit(system).result_,
}


@pytest.mark.parametrize("order", [SHUFFLED, SWAPPED, np.arange(N)[::-1]], ids=["shuffled", "swapped", "descending"])
@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("made", MAKERS)
def test_rows_out_of_order_are_refused(made: str, ask: str, order: np.ndarray, tmp_path: Any) -> None:
    system = MAKERS[made](DAYS, order, tmp_path)
    row = int(np.argmax(np.diff(order) < 0)) + 1
    wanted = f"{ask.split()[0]} takes rows .* row {row} is labelled {DAYS[order[row]]} after {DAYS[order[row - 1]]}"
    with pytest.raises(ValueError, match=wanted):
        ASKS[ask](system)


@pytest.mark.parametrize("made", MAKERS)
def test_sorted_as_the_error_says_the_answer_is_right(made: str, tmp_path: Any) -> None:
    found = LowRankGLS(0).fit(MAKERS[made](DAYS, np.arange(N), tmp_path)).result_.with_cov("hac", bandwidth=6)
    for j in range(K):
        wanted = sm.OLS(Y[:, j], X).fit(cov_type="HAC", cov_kwds={"maxlags": 6}).bse
        np.testing.assert_allclose(found.std_errors.values[2 * j : 2 * j + 2], wanted, rtol=1e-8)
    shuffled = pd.DataFrame(Y, index=DAYS).iloc[SHUFFLED], pd.DataFrame(X, index=DAYS).iloc[SHUFFLED]
    again = LowRankGLS(0).fit(System.from_arrays(*(each.sort_index() for each in shuffled))).result_
    np.testing.assert_array_equal(again.with_cov("hac", bandwidth=6).std_errors, found.std_errors)


@pytest.mark.parametrize("ask", ASKS)
def test_rows_without_labels_are_taken_as_they_come(ask: str) -> None:
    plain = ASKS[ask](System.from_arrays(Y[SHUFFLED], X[SHUFFLED]))
    one, two = (pd.DataFrame(each, index=DAYS).iloc[SHUFFLED].reset_index(drop=True) for each in (Y, X))
    numbered = ASKS[ask](System.from_arrays(one, two))
    plain, numbered = (np.asarray(getattr(answer, "std_errors", answer)) for answer in (plain, numbered))
    np.testing.assert_array_equal(plain, numbered)


@pytest.mark.parametrize("ask", ASKS)
def test_dates_that_are_there_twice_are_refused(ask: str, tmp_path: Any) -> None:
    system = MAKERS["zarr"](DAYS, np.arange(N), tmp_path)
    labels = xr.open_zarr(tmp_path / "s", consolidated=False)
    name = str(system.obs_dim)
    twice = labels[name].values.copy()
    twice[31] = twice[30]
    labels = labels.assign_coords({name: twice}).drop_encoding()
    labels.to_zarr(tmp_path / "t", zarr_format=3, consolidated=False)
    again = System.from_zarr(tmp_path / "t")
    with pytest.raises(ValueError, match=r"2000-01-31 00:00:00 is there at rows 30 and 31"):
        ASKS[ask](again)


def test_the_rows_that_are_passed_are_looked_at() -> None:
    made: Fit = LowRankGLS(1).fit(System.from_arrays(Y[SHUFFLED], X[SHUFFLED], regressors=["c", "x"])).result_
    with pytest.raises(ValueError, match="kind='hac' takes rows"):
        made.cov(
            "hac",
            system=System.from_arrays(
                pd.DataFrame(Y, index=DAYS).iloc[SHUFFLED], X[SHUFFLED], equations=made.equations, regressors=["c", "x"]
            ),
        )


@pytest.mark.parametrize("ask", ["robust", "cluster", "parametric"])
def test_what_needs_no_order_takes_any(ask: str) -> None:
    def answer(order: np.ndarray) -> np.ndarray:
        made = LowRankGLS(0).fit(frame(DAYS, order)).result_
        if ask == "parametric":
            return np.asarray(made.bootstrap(3, seed=1).std_errors)
        return np.asarray(made.cov(ask, groups=order // 5 if ask == "cluster" else None))

    np.testing.assert_allclose(answer(SHUFFLED), answer(np.arange(N)), rtol=1e-8, atol=1e-12)


def test_folds_of_rows_need_no_order() -> None:
    assert LowRankGLS("cv", n_folds=3).fit(frame(DAYS, SHUFFLED)).result_.rank == 1


LABELS = {
    "strings": pd.Index([f"{i:03d}" for i in range(N)]),
    "integers": pd.Index(np.arange(N) * 7 - 50),
    "floats": pd.Index(np.linspace(-1, 1, N)),
    "zoned": DAYS.tz_localize("Europe/Berlin"),
    "periods": pd.period_range("1990-01", periods=N, freq="M"),
    "spans": pd.to_timedelta(np.arange(N), unit="h"),
    "tuples": pd.MultiIndex.from_product([range(2), range(N // 2)]),
    "categories": pd.CategoricalIndex(pd.Categorical(range(N), ordered=False)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind: str) -> None:
    labels = LABELS[kind]
    check_ascending(labels, "time", "this")
    with pytest.raises(ValueError, match=r"this takes rows .* row 61 is labelled"):
        check_ascending(labels[SWAPPED], "time", "this")


def test_labels_that_cannot_be_compared_have_no_order() -> None:
    for labels in (
        pd.Index([1, 2, "x", 3]),
        pd.Index([1.0, 2.0, np.nan, 3.0]),
        pd.Index([1, 2, None, 3], dtype=object),
    ):
        with pytest.raises(ValueError, match="row 2 is labelled"):
            check_ascending(labels, "time", "this")
