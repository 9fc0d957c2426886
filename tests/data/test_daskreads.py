"""Dask arrays that only read a zarr array are read as that array; everything else stays a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data.daskreads import zarr_behind

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(600, 1)) + RNG.normal(size=(600, 4))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    data = xr.Dataset({"y": (("time", "asset"), Y), "packed": (("time", "asset"), Y)})
    small = {"chunks": (100, 4), "dtype": "i2", "scale_factor": 0.01, "_FillValue": -999}
    data.to_zarr(tmp_path / "a.zarr", encoding={"y": {"chunks": (100, 4)}, "packed": small}, consolidated=False)
    return tmp_path / "a.zarr"


def opened(path: Path, **options: Any) -> xr.DataArray:
    return xr.open_zarr(path, consolidated=False, **options)["y"]


def array_of(path: Path) -> zarr.Array:
    found = zarr.open_group(path, mode="r")["y"]
    assert isinstance(found, zarr.Array)
    return found


SEEN: dict[str, Callable[[Path], da.Array]] = {
    "from_zarr": lambda path: da.from_zarr(str(path), component="y"),
    "from_zarr of an array": lambda path: da.from_zarr(array_of(path)),
    "from_array": lambda path: da.from_array(array_of(path), chunks=(200, 4)),
    "inline": lambda path: da.from_array(array_of(path), chunks=(100, 4), inline_array=True),
    "columns in chunks": lambda path: da.from_array(array_of(path), chunks=(100, 2)),
    "open_zarr": lambda path: opened(path).data,
    "open_zarr in other chunks": lambda path: opened(path, chunks={"time": 300}).data,
    "open_dataset": lambda path: xr.open_dataset(path, engine="zarr", chunks={}, consolidated=False)["y"].data,
}
LEFT: dict[str, Callable[[Path], da.Array]] = {
    "some rows": lambda path: opened(path).isel(time=slice(0, 500)).data,
    "backwards": lambda path: opened(path, chunks=None).isel(time=slice(None, None, -1)).chunk({"time": 100}).data,
    "some before chunks": lambda path: opened(path, chunks=None).isel(time=slice(5, None)).chunk({"time": 100}).data,
    "negative": lambda path: (-opened(path)).data,
    "other dtype": lambda path: opened(path).astype("f4").data,
    "turned": lambda path: opened(path).T.data,
    "with a lock": lambda path: da.from_array(array_of(path), chunks=(100, 4), lock=True),
    "persisted": lambda path: opened(path).data.persist(scheduler="synchronous"),
    "two files": lambda path: xr.concat([opened(path), opened(path)], "time").data,
    "decoded": lambda path: xr.open_zarr(path, consolidated=False)["packed"].data,
    "NumPy": lambda _: da.from_array(Y, chunks=(100, 4)),
    "computed": lambda _: da.random.default_rng(0).normal(size=(600, 4), chunks=(100, 4)),
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_plain_read_is_seen_through(path: Path, kind: str) -> None:
    found = zarr_behind(SEEN[kind](path))
    assert found is not None
    assert np.array_equal(np.asarray(found[:]), Y)


@pytest.mark.parametrize("kind", LEFT)
def test_what_computes_or_selects_stays_a_graph(path: Path, kind: str) -> None:
    assert zarr_behind(LEFT[kind](path)) is None


@pytest.mark.parametrize("kind", [*SEEN, *(kind for kind in LEFT if kind != "turned")])
def test_the_rows_of_a_system_are_those_dask_computes(path: Path, kind: str) -> None:
    array = {**SEEN, **LEFT}[kind](path)
    values = array.compute(scheduler="synchronous")
    X = np.random.default_rng(1).normal(size=(len(values), 2))
    lazy, here = (LowRankGLS(1).fit(System.from_arrays(each, X)).result_ for each in (array, values))
    assert np.allclose(lazy.params, here.params, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_every_road_to_a_store_gives_the_same_bits(path: Path, engine: str) -> None:
    X = np.random.default_rng(1).normal(size=(600, 2))
    fits = [
        LowRankGLS(1, engine=engine).fit(System.from_arrays(make(path), X)).result_  # type: ignore[arg-type]
        for make in (array_of, *SEEN.values())
    ]
    assert all(np.array_equal(fits[0].params, fit.params) for fit in fits[1:])
    assert len({fit.nll for fit in fits}) == 1
