"""Equations on several dims: in by any chunks, out on the same dims."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from lrgls_dask import Fit, GroupedLowRank, LowRankGLS, System
from support.counted import CountingStore

T, LATS, LONS = 90, [10.0, 20.0, 30.0], [0.0, 5.0, 7.0, 9.0]
X = ["const", "enso", "zonal", "local"]
DIMS: dict[str, Any] = {"obs": "time", "equation": ("lat", "lon")}


def grid(seed: int = 0) -> xr.Dataset:
    """Temperatures of twelve cells; regressors along time alone, along one of the other dims, along both."""
    rng = np.random.default_rng(seed)
    shape = T, len(LATS), len(LONS)
    local, enso = rng.normal(size=shape), rng.normal(size=T)
    zonal = rng.normal(size=(len(LATS), T))
    slope = 1.0 + np.arange(12).reshape(3, 4)
    temp = 280 + slope * local + enso[:, None, None] + zonal.T[:, :, None] + rng.normal(size=shape)
    return xr.Dataset(
        {
            "temp": (
                ("time", "lat", "lon"),
                temp + rng.normal(size=(T, 1, 1)),
                {"units": "K", "valid_range": [0, 400]},
            ),
            "const": ("time", np.ones(T)),
            "enso": ("time", enso),
            "zonal": (("lat", "time"), zonal),
            "local": (("lon", "time", "lat"), local.transpose(2, 0, 1)),
            "cell_weight": (("time", "lat", "lon"), rng.uniform(0.5, 2.0, shape)),
            "area": (("lon", "lat"), rng.uniform(0.5, 2.0, shape[:0:-1])),
        },
        {
            "time": pd.date_range("2000", periods=T),
            "lat": ("lat", LATS, {"units": "degrees_north"}),
            "lon": LONS,
            "coast": (("lon", "lat"), rng.integers(0, 2, shape[:0:-1])),
        },
    )


def by_hand(ds: xr.Dataset, **options: Any) -> Fit:
    """The cells side by side, the last dim fastest."""
    whole = xr.broadcast(*(ds[name] for name in X), exclude=[])
    columns = [each.transpose("time", "lat", "lon").values.reshape(T, -1) for each in whole]
    Y = ds["temp"].transpose("time", "lat", "lon").values.reshape(T, -1)
    weights = options.pop("weights", None)
    Xs = [np.column_stack([column[:, j] for column in columns]) for j in range(Y.shape[1])]
    return LowRankGLS(1, **options).fit(System.from_arrays(Y, Xs, weights=weights)).result_


def fitted(ds: xr.Dataset, **options: Any) -> Fit:
    system = System.from_xarray(ds, "temp", X, **DIMS, weights=options.pop("weights", None))
    return LowRankGLS(1, **options).fit(system).result_


CHUNKS: dict[str, Any] = {
    "memory": None,
    "time": {"time": 31},
    "space": {"lat": 2, "lon": 3},
    "both": {"time": 40, "lat": 1, "lon": 2},
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_the_fit_is_that_of_the_cells_side_by_side(chunks: Any, engine: str) -> None:
    ds = grid()
    expected = by_hand(ds, engine=engine)
    found = fitted(ds if chunks is None else ds.chunk(chunks), engine=engine)
    assert found.design.n_regressors == 2 + 3 + 12  # a column for each latitude is stored once
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-9)
    told = found.to_dataset()
    assert told["params"].dims == ("lat", "lon", "regressor")
    assert told["loadings"].dims == ("lat", "lon", "factor")
    assert told["r2"].dims == ("lat", "lon")
    assert (told["lat"].values.tolist(), told["lon"].values.tolist()) == (LATS, LONS)
    rtol = 1e-6
    for name in ("params", "std_errors"):
        np.testing.assert_allclose(told[name].values.ravel(), getattr(expected, name).values, rtol=rtol)
    for name in ("r2", "idio_var"):
        np.testing.assert_allclose(told[name].values.ravel(), getattr(expected, name).values, rtol=rtol)


def of_cells() -> dict[tuple[float, float], list[str]]:
    """Regressors of each cell: the local one in eastern cells, the zonal one in northern ones but for one."""
    cells = [(lat, lon) for lat in LATS for lon in LONS]
    local, zonal = [lon > 5 for _, lon in cells], [lat > 15 and lon != 7 for lat, lon in cells]
    return {
        cell: ["const", *["local"] * mine, *["zonal"] * theirs, "enso"]
        for cell, mine, theirs in zip(cells, local, zonal, strict=True)
    }


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("options", [{}, {"engine": "stream"}, {"missing": "em"}], ids=["compress", "stream", "holes"])
def test_cells_have_regressors_of_their_own(chunks: Any, options: dict[str, Any], tmp_path: Any) -> None:
    ds = grid()
    if "missing" in options:
        ds["temp"] = ds["temp"].where(np.random.default_rng(1).random(ds["temp"].shape) > 0.05)
    x = of_cells()
    system = System.from_xarray(ds if chunks is None else ds.chunk(chunks), "temp", x, **DIMS)
    assert system.n_regressors == 2 + 2 + 6 and system.n_coefficients == 12 * 2 + 6 + 6
    at = {name: xr.broadcast(ds[name], ds["temp"])[0].transpose("time", "lat", "lon") for name in X}
    Xs = [np.column_stack([at[name].sel(lat=cell[0], lon=cell[1]) for name in names]) for cell, names in x.items()]
    expected = LowRankGLS(1, **options).fit(System.from_arrays(ds["temp"].values.reshape(T, -1), Xs)).result_
    found = LowRankGLS(1, **options).fit(system).result_
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-8)
    np.testing.assert_allclose(found.params.values, expected.params.values, rtol=1e-4, atol=1e-5)
    told = found.to_dataset()["params"]
    assert told.dims == ("lat", "lon", "regressor") and int(told.notnull().sum()) == 36
    assert np.isnan(told.sel(lat=20.0, lon=7.0, regressor="zonal"))
    system.to_zarr(tmp_path / "s.zarr")
    again = LowRankGLS(1, **options).fit(System.from_zarr(tmp_path / "s.zarr")).result_
    np.testing.assert_allclose(again.loglik, found.loglik, rtol=1e-8)
    yhat = found.predict(ds)
    assert yhat.dims == ("time", "lat", "lon")
    ends = np.cumsum([each.shape[1] for each in Xs])[:-1]
    by_hand = [each @ b for each, b in zip(Xs, np.split(found.params.values, ends), strict=True)]
    np.testing.assert_allclose(yhat.values.reshape(T, -1), np.column_stack(by_hand), rtol=1e-9)


@pytest.mark.parametrize("chunks", [{"time": 30}, {"lat": 1, "lon": 2}])
def test_each_stored_chunk_is_read_once_a_pass(chunks: dict[str, int]) -> None:
    store = CountingStore(MemoryStore())
    ds = grid()[["temp", "const", "enso", "local"]].chunk({"time": -1, "lat": -1, "lon": -1} | chunks)
    ds.drop_vars("coast").to_zarr(store, consolidated=False)
    opened = xr.open_zarr(store, consolidated=False)
    system = System.from_xarray(opened, "temp", ["const", "enso", "local"], **DIMS)
    store.gets.clear()
    LowRankGLS(1, engine="compress").fit(system)
    assert {key: n for key, n in store.gets.items() if "/c/" in key and n != 1} == {}
    assert sum(key.startswith(("temp/c/", "local/c/")) for key in store.gets) == 2 * np.prod(
        [-(-ds.sizes[dim] // length) for dim, length in chunks.items()]
    )


def test_rows_come_out_on_the_dims_that_went_in() -> None:
    ds = grid(1)
    found = fitted(ds.chunk({"lat": 2, "lon": 3}))
    system = System.from_xarray(ds, "temp", X, **DIMS)
    right = by_hand(ds)
    flat = right.predict(right.system).values.reshape(T, 3, 4)
    for data in (system, ds, ds.chunk({"lon": 1}), ds.isel(lat=[2, 0, 1], lon=slice(None, None, -1))):
        predicted = found.predict(data)
        assert predicted.dims == ("time", "lat", "lon")
        np.testing.assert_allclose(predicted.sel(lat=LATS, lon=LONS).values, flat, rtol=1e-9)
    assert (predicted.attrs, predicted["lat"].attrs) == ({"units": "K"}, {"units": "degrees_north"})
    assert list(predicted["time"].values) == list(ds["time"].values)
    residuals = found.residuals(system)
    np.testing.assert_allclose(residuals + flat, ds["temp"].transpose("time", "lat", "lon"), rtol=1e-9)
    interval = found.predict(ds, interval=0.9, kind="observation")
    assert interval["upper"].dims == ("time", "lat", "lon")


def test_some_cells_given_others() -> None:
    ds = grid(2)
    found, right = fitted(ds), by_hand(ds)
    known = ds["temp"].sel(lat=[10.0, 30.0])
    Y = ds["temp"].values.copy()
    Y[:, 1] = np.nan
    expected = right.predict_given(_regressors(ds), y=Y.reshape(T, -1))
    given = found.predict_given(ds, y=known)
    np.testing.assert_allclose(given.transpose("time", "lat", "lon").values.reshape(T, -1), expected.values, rtol=1e-8)


def _regressors(ds: xr.Dataset) -> np.ndarray:
    """In the order of the columns of `by_hand`."""
    whole = xr.broadcast(*(ds[name] for name in X))
    columns = [each.transpose("time", "lat", "lon").values.reshape(T, -1) for each in whole]
    return np.column_stack([column[:, j] for j in range(12) for column in columns])


def test_missing_responses_are_filled_in_their_place() -> None:
    ds = grid(3)
    ds["temp"] = ds["temp"].where(np.random.default_rng(0).random(ds["temp"].shape) > 0.1)
    found, right = fitted(ds.chunk({"lat": 2}), missing="em"), by_hand(ds, missing="em")
    np.testing.assert_allclose(found.loglik, right.loglik, rtol=1e-8)
    np.testing.assert_allclose(found.to_dataset()["params"].values.ravel(), right.params.values, rtol=1e-4)
    filled = found.impute(System.from_xarray(ds, "temp", X, **DIMS))
    assert all(each.dims == ("time", "lat", "lon") for each in filled.values())


@pytest.mark.parametrize("chunks", [None, {"lat": 2, "lon": 3}])
def test_weights_lie_on_any_of_the_dims(chunks: Any) -> None:
    ds = grid(4)
    given = ds if chunks is None else ds.chunk(chunks)
    cells = ds["cell_weight"].values.reshape(T, -1)
    area = ds["area"].transpose("lat", "lon").values.reshape(1, -1)
    for name, weights in (("cell_weight", cells), ("area", area)):
        found, right = fitted(given, weights=name), by_hand(ds, weights=weights)
        np.testing.assert_allclose(found.loglik, right.loglik, rtol=1e-9)
        np.testing.assert_allclose(found.to_dataset()["params"].values.ravel(), right.params.values, rtol=1e-6)


def test_coordinates_of_the_dims_name_groups() -> None:
    ds = grid(5).chunk({"lat": 2})
    system = System.from_xarray(ds, "temp", X, **DIMS)
    assert system.design.equation_coords["lat"] == tuple(label[0] for label in system.equations)
    coast = {(la, lo): int(ds["coast"].sel(lat=la, lon=lo)) for la in LATS for lo in LONS}
    assert system.design.equation_coords["coast"] == tuple(coast[label] for label in system.equations)
    found = LowRankGLS(covariance=GroupedLowRank(1, "lat")).fit(system).result_
    assert found.to_dataset()["loadings"].sizes["factor"] == 4


def test_fits_and_systems_keep_the_dims(tmp_path: Any) -> None:
    ds = grid(6)
    found = fitted(ds.chunk({"lon": 3}))
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(opened.to_dataset(), found.to_dataset())
    assert opened.predict(ds).dims == ("time", "lat", "lon")
    System.from_xarray(ds.chunk({"lon": 3}), "temp", X, **DIMS).to_zarr(tmp_path / "system.zarr")
    again = LowRankGLS(1).fit(System.from_zarr(tmp_path / "system.zarr")).result_
    xr.testing.assert_allclose(again.to_dataset()["params"], found.to_dataset()["params"], rtol=1e-8)
    assert again.predict(ds)["lat"].attrs == {"units": "degrees_north"}
    assert xr.open_zarr(tmp_path / "system.zarr")["lat"].dtype == np.float64
    compressed = System.from_zarr(tmp_path / "system.zarr").compress()
    assert LowRankGLS(1).fit(compressed).result_.to_dataset()["r2"].dims == ("lat", "lon")


def test_one_dim_in_a_list_is_that_dim() -> None:
    ds = grid(7).isel(lon=0)
    system = System.from_xarray(ds, "temp", ["const", "zonal"], obs="time", equation=["lat"])
    assert (system.equation_dim, list(system.equations)) == ("lat", LATS)


def test_cells_without_labels_are_numbered() -> None:
    ds = grid(8).drop_vars(["lat", "lon", "coast"])
    told = fitted(ds).to_dataset()
    assert (told["lat"].values.tolist(), told["lon"].values.tolist()) == ([0, 1, 2], [0, 1, 2, 3])
    assert fitted(ds).predict(ds).dims == ("time", "lat", "lon")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equation": ("lat", "lat")}, "must name different dims of y"),
        ({"equation": ("time", "lat")}, "must name different dims of y"),
        ({"equation": ("lat", "height")}, r"has dims .* but must have 'time' and 'lat' and 'height'"),
        ({"equation": "lat"}, r"Select along 'lon'"),
        ({"x": {("a", "b"): ["const"]}}, r"x names equation \('a', 'b'\), which y does not have"),
        ({"x": {(10.0, 0.0): ["const"]}}, r"x must list regressors for every equation; it lacks \(10.0, 5.0\)"),
        ({"weights": "zonal"}, "must have all of"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    given = {"x": X, **DIMS} | change
    with pytest.raises((ValueError, TypeError), match=message):
        System.from_xarray(grid(), "temp", **given)


def test_a_dataset_of_equations_that_have_regressors_of_their_own() -> None:
    rng = np.random.default_rng(9)
    X1, X2 = np.column_stack([np.ones(50), rng.normal(size=(50, 2))]), np.ones((50, 1))
    Y = pd.DataFrame(rng.normal(size=(50, 2)), columns=["a", "b"])
    system = System.from_arrays(Y, [X1, X2], regressors=[["const", "u", "v"], ["const"]])
    found = LowRankGLS(0).fit(system).result_
    told = found.to_dataset()
    assert told["params"].sel(equation="a").values.tolist() == found.params.values[:3].tolist()
    assert told["params"].sel(equation="b", regressor="const").item() == found.params.values[3]
    assert np.isnan(told["params"].sel(equation="b", regressor=["u", "v"])).all()
    assert told.attrs["n_obs"] == 50


@pytest.mark.parametrize("chunks", [None, {"lat": 1, "lon": 2}])
def test_land_is_skipped_and_stays_on_the_map(chunks: Any, tmp_path: Any) -> None:
    ds = grid(10)
    land = xr.DataArray(np.arange(12).reshape(3, 4) % 3 == 0, {"lat": LATS, "lon": LONS}, ("lat", "lon"))
    ds["temp"] = ds["temp"].where(~land)
    found = fitted(ds if chunks is None else ds.chunk(chunks), unusable="skip", missing="em")
    told = found.to_dataset()
    assert (told["status"] == "no rows").equals(land.rename("status"))
    for name in ("params", "std_errors", "r2", "loadings"):
        assert (
            told[name].isnull().any([d for d in told[name].dims if d not in ("lat", "lon")]).equals(land.rename(name))
        )
    sea = ~land.values.ravel()
    columns = _regressors(ds).reshape(T, 12, 4)
    Y = ds["temp"].values.reshape(T, -1)
    right = LowRankGLS(1).fit(System.from_arrays(Y[:, sea], [columns[:, j] for j in np.flatnonzero(sea)])).result_
    np.testing.assert_allclose(told["params"].values.reshape(12, 4)[sea].ravel(), right.params.values, rtol=1e-6)
    predicted = found.predict(ds)
    assert predicted.dims == ("time", "lat", "lon")
    assert predicted.isnull().all("time").equals(land.rename("predicted"))
    found.to_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(Fit.from_zarr(tmp_path / "fit.zarr").to_dataset(), told)


def test_a_table_that_has_no_room_is_refused_by_what_has(monkeypatch):
    rng = np.random.default_rng(0)
    fit = LowRankGLS(0).fit(System.from_arrays(rng.normal(size=(30, 3)), [rng.normal(size=(30, 2)) for _ in "abc"]))
    monkeypatch.setattr("lrgls_dask.rows.memory.psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(MemoryError, match=r"a table of 3 equations by 2 regressors.*Take fit\.tidy"):
        fit.result_.to_dataset()
