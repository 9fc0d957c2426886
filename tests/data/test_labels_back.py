"""Row labels of every kind come back from predictions, stores and commands, with their name, as the user has them."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.cli.main import main
from lrgls_dask.data.storedlabels import decode_labels
from lrgls_dask.varying.labels import segments_of

N, K = 60, 3
RNG = np.random.default_rng(3)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = 1.0 + X[:, 1:] + RNG.normal(size=(N, 1)) + RNG.normal(size=(N, K))
DAY = datetime.date(2001, 1, 31)
TEXT = [f"r{i}" for i in range(N)]
INDEXES: dict[str, pd.Index] = {
    "default": pd.RangeIndex(N),
    "integers": pd.Index(np.arange(N, dtype=np.int32) * 3),
    "nullable": pd.Index(range(5, 5 + N), dtype="Int64"),
    "large": pd.Index([2**70 + i for i in range(N)], dtype=object),
    "floats": pd.Index(np.arange(N) * 0.5),
    "objects": pd.Index(TEXT, dtype=object),
    "strings": pd.Index(TEXT, dtype="string"),
    "categories": pd.CategoricalIndex(TEXT),
    "dates": pd.date_range("1999-12-31", periods=N, freq="ME"),
    "seconds": pd.date_range("1700", periods=N, unit="s"),
    "nanoseconds": pd.date_range("2000", periods=N, freq="7ns", unit="ns"),
    "zone": pd.date_range("2000-03-20", periods=N, tz="Europe/Berlin"),
    "offset": pd.date_range("2000", periods=N, tz=datetime.timezone(datetime.timedelta(hours=-3))),
    "months": pd.period_range("2000-01", periods=N, freq="M"),
    "quarters": pd.period_range("2000Q1", periods=N, freq="Q-NOV"),
    "lengths": pd.timedelta_range("1h", periods=N, freq="90min"),
    "days": pd.Index([DAY + datetime.timedelta(i) for i in range(N)], dtype=object),
    "decimals": pd.Index([decimal.Decimal(i) / 4 for i in range(N)], dtype=object),
    "tuples": pd.Index([("a", i) for i in range(N)], tupleize_cols=False),
    "levels": pd.MultiIndex.from_product([["AT", "BE"], pd.date_range("2000", periods=N // 2)], names=["land", "day"]),
    "years": pd.MultiIndex.from_product([["AT", "BE"], pd.period_range("2000", periods=N // 2, freq="Y")]),
}
each_index = pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
each_name = pytest.mark.parametrize("name", [None, "Date"])


@pytest.fixture(scope="module")
def fit() -> Fit:
    return LowRankGLS(rank=1).fit(System.from_arrays(Y, X, equations=list("abc"), regressors=["c", "x"])).result_


def called(index: pd.Index, name: str | None) -> pd.Index:
    return index if isinstance(index, pd.MultiIndex) else index.rename(name)


def frames(index: pd.Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame(Y, index, list("abc")), pd.DataFrame(X, index, ["c", "x"])


def check_back(found: pd.Index, index: pd.Index, *, exact: bool = True) -> None:
    """Rows without a name are called obs, and levels without one after it, for xarray needs one."""
    if isinstance(index, pd.MultiIndex):
        found = found if index.names[0] else found.set_names([None, None])
    elif index.name is None:
        assert found.name in (None, "obs")
        found = found.rename(None)
    assert found.tolist() == index.tolist() and found.names == index.names
    assert (found.dtype == index.dtype and found.nlevels == index.nlevels) or not exact


@each_index
@each_name
def test_predictions_have_the_index_of_the_data(index: pd.Index, name: str | None, fit: Fit) -> None:
    check_predictions(called(index, name), name, fit)


def check_predictions(index: pd.Index, name: str | None, fit: Fit) -> None:
    y, x = frames(index)
    system = System.from_arrays(y, x)
    assert system.obs_dim == ("Date" if name and not isinstance(index, pd.MultiIndex) else "obs")
    wanted = X @ fit.coefficients.reshape(K, 2).T
    check_back(system.obs, index)
    for data in (system, x, x[["x", "c"]]):
        found = fit.predict(data).to_pandas()
        check_back(found.index, index)
        np.testing.assert_allclose(found, wanted)
        check_back(fit.predict(data, interval=0.9)["lower"].to_pandas().index, index)
    check_back(fit.residuals(system).to_pandas().index, index)
    check_back(fit.factor_scores(system).to_pandas().index, index)
    check_back(fit.factor_scores(x, y).to_pandas().index, index)
    check_back(fit.predict_given(x, y[["b"]], interval=0.9)["predicted"].to_pandas().index, index)
    check_back(fit.impute(system)["Y"].to_pandas().index, index)


@each_index
def test_stores_and_commands_keep_labels(index: pd.Index, fit: Fit, tmp_path: Path) -> None:
    # a store keeps the values of these, not their dtype
    exact = not any(index is INDEXES[kind] for kind in ("nullable", "objects", "strings", "categories"))
    check_kept(called(index, "Date"), exact, fit, tmp_path)


def check_kept(index: pd.Index, exact: bool, fit: Fit, tmp_path: Path) -> None:
    system = System.from_arrays(*frames(index))
    system.to_zarr(tmp_path / "s")
    fit.to_zarr(tmp_path / "f")
    opened = System.from_zarr(tmp_path / "s")
    check_back(opened.obs, index, exact=exact)
    assert opened.dims == system.dims
    check_back(Fit.from_zarr(tmp_path / "f").predict(opened).to_pandas().index, index, exact=exact)
    fit.impute(opened, tmp_path / "i")
    check_back(System.from_zarr(tmp_path / "i").obs, index, exact=exact)
    # what was stored and what was given are paired as the same
    assert opened.values_of_rows("groups", pd.Series(np.arange(N), index)).tolist() == list(range(N))
    line = [
        "predict",
        tmp_path / "f",
        tmp_path / "s",
        "--out",
        tmp_path / "p",
        "--interval",
        "0.9",
        "--scores",
        "bartlett",
    ]
    assert main([str(word) for word in line]) == 0
    written = zarr.open_group(tmp_path / "p", mode="r")[str(system.obs_dim)]
    labels = decode_labels(np.asarray(written[:]), dict(written.attrs))
    check_back(labels.set_names(index.names), index, exact=exact)
    with xr.open_zarr(tmp_path / "p") as made:
        np.testing.assert_allclose(made["yhat"], fit.predict(system))
        assert made["factor_scores"].sizes == {system.obs_dim: N, "factor": 1}


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
@pytest.mark.parametrize("kind", ["index", "objects", "dataset"])
def test_dates_of_other_calendars(calendar: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("cftime")
    index: pd.Index = xr.date_range("2000-02-27", periods=N, calendar=calendar, use_cftime=True)
    if kind == "dataset":
        ds = xr.Dataset({"y": (("time", "equation"), Y), "x": ("time", X[:, 1]), "c": ("time", X[:, 0])})
        system = System.from_xarray(ds.assign_coords(time=index), "y", ["c", "x"], obs="time")
    else:
        index = index if kind == "index" else pd.Index(index.tolist(), dtype=object)
        system = System.from_arrays(*frames(index.rename("time")))
    fit = LowRankGLS(rank=0).fit(system).result_
    system.to_zarr(tmp_path / "s")
    with xr.open_zarr(tmp_path / "s", decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as plain:
        assert plain.indexes["time"].tolist() == index.tolist()
    for data in (system, System.from_zarr(tmp_path / "s")):
        found = fit.predict(data)
        assert found.dims == ("time", "equation")
        assert found.indexes["time"].tolist() == index.tolist()
    with pytest.raises(ValueError, match="groups and the system have different labels along 'time'"):
        fit.cov("cluster", groups=pd.Series(np.arange(N) // 2, index[::-1]))


def test_plain_xarray_sees_dates(tmp_path: Path) -> None:
    for kind, first in (("months", "2000-01-01"), ("zone", "2000-03-19T23:00"), ("dates", "1999-12-31")):
        System.from_arrays(*frames(INDEXES[kind])).to_zarr(tmp_path / kind)
        with xr.open_zarr(tmp_path / kind) as plain:
            assert plain["obs"].values[0] == np.datetime64(first)


GROUPS: dict[str, Any] = {
    "text": np.array(list("abcdefghijkl"))[np.arange(N) // 5],
    "months": pd.Series(pd.period_range("2000", periods=12, freq="M").repeat(5)),
    "dates": pd.Series(pd.date_range("2000", periods=12).repeat(5)),
    "zone": pd.Series(pd.date_range("2000", periods=12, tz="Europe/Berlin").repeat(5)),
    "lengths": pd.Series(pd.timedelta_range("1h", periods=12, freq="h").repeat(5)),
    "tuples": pd.Series([("a", i // 5) for i in range(N)]),
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_groups_of_rows_come_back(groups: Any, fit: Fit, tmp_path: Path) -> None:
    system = System.from_arrays(Y, X, groups=groups, equations=list("abc"), regressors=["c", "x"])
    system.to_zarr(tmp_path / "s")
    System.from_zarr(tmp_path / "s").to_zarr(tmp_path / "t", row_chunk=7)
    wanted = fit.cov("cluster", groups=np.arange(N) // 5)
    for each in (system, System.from_zarr(tmp_path / "s"), System.from_zarr(tmp_path / "t")):
        assert list(each.groups_of_rows()) == list(system.groups_of_rows())
        np.testing.assert_allclose(fit.cov("cluster", system=each), wanted)


# ------------------------------------------------------------------------------------------- what rows are called


@pytest.mark.parametrize("name", ["equation", "factor", "regressor", "Y", "lower", "a/b", "", 7, ("a", 1)])
def test_names_that_rows_cannot_have(name: Any, fit: Fit, tmp_path: Path) -> None:
    y, x = frames(pd.Index(np.arange(N) + 5, name=name, tupleize_cols=False))
    system = System.from_arrays(y, x)
    system.to_zarr(tmp_path / "s")
    for data in (system, x, System.from_zarr(tmp_path / "s")):
        for found in (fit.predict(data, interval=0.5)["lower"], fit.factor_scores(data, None if data is not x else y)):
            assert found.dims[0] == "obs" and found.indexes["obs"].tolist() == list(range(5, 5 + N))


def test_levels_whose_names_are_taken(fit: Fit) -> None:
    index = INDEXES["levels"]
    for names in (["obs", "equation"], ["same", "same"], ["factor", "day"]):
        y, x = frames(index.set_names(names))
        system = System.from_arrays(y, x)
        for found in (fit.predict(system), fit.factor_scores(system), fit.predict(x)):
            assert found.to_pandas().index.tolist() == index.tolist()


def test_rows_are_called_as_the_first_that_names_them() -> None:
    dates = INDEXES["dates"]
    y, x = frames(dates.rename("day"))
    unnamed = y.rename_axis(None)
    assert System.from_arrays(y, X).obs_dim == "day"
    assert System.from_arrays(unnamed, x).obs_dim == "day"
    assert System.from_arrays(y, x.rename_axis("other")).obs_dim == "day"
    assert System.from_arrays(Y, X, weights=pd.Series(np.ones(N), dates.rename("day"))).obs_dim == "day"
    assert System.from_arrays(unnamed, X).obs_dim == "obs"
    assert System.from_arrays(xr.DataArray(Y, dims=("t", "firm")), x).dims == ("t", "firm")


def test_predictions_go_by_the_data_then_by_the_fit() -> None:
    y, x = frames(INDEXES["dates"].rename("day"))
    fit = LowRankGLS(rank=1).fit(System.from_arrays(y, x)).result_
    assert fit.predict(X).dims == fit.predict(x.rename_axis(None)).dims == ("day", "equation")
    assert fit.predict(x.rename_axis("when")).dims == ("when", "equation")
    assert fit.predict(x.to_xarray()).dims == ("day", "equation")
    assert fit.predict(System.from_arrays(Y, X, equations=list("abc"), regressors=["c", "x"])).dims == (
        "obs",
        "equation",
    )
    given = xr.DataArray(Y, {"when": INDEXES["dates"], "equation": list("abc")}, ("when", "equation"))
    assert fit.predict_given(x.rename_axis("when"), given).dims == ("when", "equation")
    by_part, _ = segments_of("day.year", System.from_arrays(y, x))
    assert by_part.tolist() == segments_of("obs.year", System.from_arrays(y, x))[0].tolist() == sorted({*y.index.year})
    varying: Any = LowRankGLS(covariance=TimeVarying(1, np.arange(N) // 30))
    assert varying.fit(System.from_arrays(y, x)).result_.predict(x).to_pandas().index.equals(y.index)


# ------------------------------------------------------------------------------------------- equations, regressors

LABELS: dict[str, Any] = {
    "numbers": [1, 2.5, "a"],
    "dates": pd.date_range("2000", periods=3),
    "zone": pd.date_range("2000", periods=3, tz="Europe/Berlin"),
    "datetime64": list(np.array(["2000-01-01", "2000-01-02", "2000-01-03"], dtype="M8[ns]")),
    "months": pd.period_range("2000", periods=3, freq="M"),
    "lengths": pd.timedelta_range("1h", periods=3, freq="h"),
    "days": [DAY, DAY.replace(day=1), DAY.replace(day=2)],
    "tuples": pd.Index([("a", 1), ("a", 2), ("b", 1)], tupleize_cols=False),
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["s", "n"]),
    "nested": pd.Index([("a", ("b", 1)), ("a", ("b", 2)), ("c", ("d", 3))], tupleize_cols=False),
    "categories": pd.CategoricalIndex(["u", "v", "w"]),
    "strings": pd.Index(["u", "v", "w"], dtype="string"),
    "nullable": pd.Index([1, 2, 3], dtype="Int64"),
}


@pytest.mark.parametrize("role", ["equations", "regressors"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_columns(labels: Any, role: str, tmp_path: Path) -> None:
    wide = np.column_stack([X, RNG.normal(size=N)])
    y, x = pd.DataFrame(Y, columns=list("abc")), pd.DataFrame(wide, columns=list("cxz"))
    (y if role == "equations" else x).columns = labels if isinstance(labels, pd.Index) else pd.Index(labels)
    wanted = pd.Index(labels, tupleize_cols=False).tolist()
    system = System.from_arrays(y, x)
    fit = LowRankGLS(rank=0).fit(system).result_
    system.to_zarr(tmp_path / "s")
    system.compress().to_zarr(tmp_path / "c")
    fit.to_zarr(tmp_path / "f")
    opened = Fit.from_zarr(tmp_path / "f")
    for each in (system, fit, System.from_zarr(tmp_path / "s"), CompressedSystem.from_zarr(tmp_path / "c"), opened):
        assert list(getattr(each, role)) == wanted
        assert [type(a) for a in getattr(each, role)] == [type(a) for a in getattr(system, role)]
    assert list(map(type, getattr(System.from_arrays(Y, wide, **{role: labels}), role))) == list(map(type, wanted))
    found = opened.predict(x.iloc[:, ::-1])
    np.testing.assert_allclose(found, fit.predict(System.from_zarr(tmp_path / "s")))
    if role == "equations":
        assert found.indexes["equation"].tolist() == wanted
    assert str(opened.summary())
    assert main(["predict", str(tmp_path / "f"), str(tmp_path / "s"), "--out", str(tmp_path / "p")]) == 0


MISSING = [None, np.nan, pd.NA, pd.NaT]


@pytest.mark.parametrize("missing", MISSING, ids=str)
def test_missing_labels_of_columns_are_refused(missing: Any) -> None:
    labels = pd.Index(["a", missing, "c"], dtype=object)
    ds = xr.Dataset({"y": (("obs", "equation"), Y), "c": ("obs", X[:, 0])})
    with pytest.raises(ValueError, match=r"equation labels must not be missing; found .* at position 1"):
        System.from_arrays(pd.DataFrame(Y, columns=labels), X)
    with pytest.raises(ValueError, match=r"equation labels must not be missing; found .* at position 1"):
        System.from_arrays(Y, X, equations=["a", missing, "c"])
    with pytest.raises(ValueError, match=r"equation labels must not be missing; found \('a', .*\) at position 1"):
        System.from_arrays(Y, X, equations=["a", ("a", missing), "c"])
    with pytest.raises(ValueError, match=r"equation labels must not be missing; found .* at position 1"):
        System.from_xarray(ds.assign_coords(equation=np.array(["a", missing, "c"], dtype=object)), "y", ["c"])
    with pytest.raises(ValueError, match=r"regressor names must not be missing within equation .* at position 0"):
        System.from_arrays(Y, pd.DataFrame(X, columns=pd.Index([missing, "x"], dtype=object)))


@pytest.mark.parametrize("index", ["dates", "zone", "floats", "objects", "levels", "nullable", "months"])
def test_missing_labels_of_rows_are_refused(index: str) -> None:
    whole = INDEXES[index]
    holes = whole.insert(3, (None, whole[3][1]) if index == "levels" else None).delete(4)
    with pytest.raises(ValueError, match=r"row labels along 'obs' must not be missing; found .* at row 3, 1 such rows"):
        System.from_arrays(pd.DataFrame(Y, holes), X)
    assert System.from_arrays(pd.DataFrame(Y, holes).reset_index(drop=True), X).obs.equals(pd.RangeIndex(N))
