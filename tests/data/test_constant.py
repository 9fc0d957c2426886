"""A constant that `from_xarray` makes is a variable of ones, which nobody has to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.cli import main
from support.frames import x_of

RNG = np.random.default_rng(0)
N, K = 120, 6
X = RNG.normal(size=(N, 2)) + 3
OWN = RNG.normal(size=(N, K))
Y = 5 + X @ RNG.normal(size=(2, K)) + OWN + RNG.normal(size=(N, K)) + RNG.normal(size=(N, 1))
DS = xr.Dataset(
    {
        "y": (("time", "firm"), Y),
        "a": ("time", X[:, 0]),
        "b": ("time", X[:, 1]),
        "own": (("time", "firm"), OWN),
        "w": (("time", "firm"), RNG.uniform(0.5, 2, (N, K))),
        "month": ("time", np.arange(N) % 12),
    },
    {"time": np.arange(N), "firm": list("pqrstu")},
)
WITH = DS.assign(const=("time", np.ones(N)))
WHERE: dict[str, Any] = {"obs": "time", "equation": "firm"}


def made(ds: xr.Dataset = DS, x: Any = ("a", "b", "own"), **how: Any) -> System:
    return System.from_xarray(ds, "y", list(x) if isinstance(x, tuple) else x, **WHERE, constant=True, **how)


def by_hand(ds: xr.Dataset = WITH, x: Any = ("const", "a", "b", "own"), **how: Any) -> System:
    return System.from_xarray(ds, "y", list(x) if isinstance(x, tuple) else x, **WHERE, **how)


def fitted(system: System, **options: Any) -> Fit:
    return LowRankGLS(**({"rank": 1} | options)).fit(system).result_


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("chunks", [None, 17])
@pytest.mark.parametrize("how", [{}, {"weights": "w"}], ids=str)
def test_it_is_a_column_of_ones(engine: Any, chunks: int | None, how: dict[str, Any]) -> None:
    one, other = (ds if chunks is None else ds.chunk(time=chunks) for ds in (DS, WITH))
    found, wanted = fitted(made(one, **how), engine=engine), fitted(by_hand(other, **how), engine=engine)
    xr.testing.assert_identical(found.params.drop_attrs(), wanted.params.drop_attrs())
    xr.testing.assert_identical(found.std_errors, wanted.std_errors)
    np.testing.assert_array_equal(found.r2, wanted.r2)


def test_it_is_stored_once_and_takes_no_memory() -> None:
    system = made()
    assert system.regressors[0] == "const"
    assert system.n_regressors == 3 + K
    assert system.rows.x[0].array.strides == (0,)
    np.testing.assert_array_equal(x_of(system)[:, 0], np.ones(N))


def test_equations_that_differ_and_those_of_a_constant_alone() -> None:
    x = {firm: ["a", "own"] if firm in "pq" else ["b"] for firm in "pqrstu"}
    found = fitted(made(x=x))
    wanted = fitted(by_hand(x={firm: ["const", *names] for firm, names in x.items()}))
    np.testing.assert_array_equal(found.params, wanted.params)
    np.testing.assert_allclose(fitted(made(x=[])).params, Y.mean(axis=0), rtol=1e-12)


def test_several_dims() -> None:
    grid = xr.Dataset({"y": (("time", "lat", "lon"), Y.reshape(N, 2, 3)), "a": ("time", X[:, 0])})
    system = System.from_xarray(grid, "y", ["a"], obs="time", equation=("lat", "lon"), constant=True)
    params = fitted(system).to_dataset()["params"]
    wanted = np.linalg.lstsq(np.column_stack([np.ones(N), X[:, 0]]), Y, rcond=None)[0]
    np.testing.assert_allclose(params.sel(regressor="const").values.ravel(), wanted[0], rtol=1e-9)


def test_new_rows_need_not_have_it(tmp_path: Path) -> None:
    fit = fitted(made(x=("a", "b")))
    wanted = np.asarray(fit.predict(made(x=("a", "b"))))
    fit.to_zarr(tmp_path / "fit.zarr")
    frame = DS[["a", "b"]].to_dataframe()
    for each in (fit, Fit.from_zarr(tmp_path / "fit.zarr")):
        for given in (DS[["b", "a"]], DS.chunk(time=17), frame[["b", "a"]], dd.from_pandas(frame, npartitions=3)):
            np.testing.assert_array_equal(np.asarray(each.predict(given)), wanted)
        np.testing.assert_array_equal(np.asarray(each.predict(WITH)), wanted)
        np.testing.assert_array_equal(np.asarray(each.predict(np.column_stack([np.ones(N), X]))), wanted)
        assert float(each.predict(DS, interval=0.9)["std_error"].min()) > 0
        with pytest.raises(ValueError, match="lack regressors 'b'"):
            each.predict(DS[["a"]])
        with pytest.raises(ValueError, match=r"lack 'b'"):
            each.predict(frame[["a"]])


def test_new_rows_for_some_equations() -> None:
    ds = DS.assign(y=DS["y"].where(DS["firm"] != "q"))
    fit = fitted(made(ds), unusable="skip")
    wanted = fitted(by_hand(WITH.assign(y=ds["y"])), unusable="skip")
    np.testing.assert_array_equal(np.asarray(fit.predict(ds)), np.asarray(wanted.predict(WITH)))


def test_a_store_keeps_what_it_is(tmp_path: Path) -> None:
    made(x=("a", "b")).to_zarr(tmp_path / "s.zarr")
    fit = fitted(System.from_zarr(tmp_path / "s.zarr"))
    np.testing.assert_array_equal(np.asarray(fit.predict(DS)), np.asarray(fit.predict(WITH)))


def test_effects_that_are_absorbed_stand_in_its_place() -> None:
    system = made(x=("a", "b"), absorb="month")
    assert system.regressors == ("a", "b")
    np.testing.assert_array_equal(fitted(system).params, fitted(by_hand(x=("a", "b"), absorb="month")).params)


def test_it_is_not_there_twice() -> None:
    with pytest.raises(ValueError, match="x has a regressor 'const', and constant=True makes one"):
        made(WITH, ("const", "a"))


def test_in_a_call_and_from_the_command_line(tmp_path: Path) -> None:
    wanted = fitted(by_hand(x=("const", "a", "b"))).params.values
    fit = DS.lrgls.fit("y", ["a", "b"], **WHERE, constant=True, rank=1)
    np.testing.assert_array_equal(fit.params, wanted)
    DS[["y", "a", "b"]].to_netcdf(tmp_path / "d.nc")
    words = ["import", str(tmp_path / "d.nc"), str(tmp_path / "s.zarr"), "--y", "y", "--x", "a,b", "--constant"]
    assert main([*words, "--obs", "time", "--equation", "firm"]) == 0
    np.testing.assert_allclose(fitted(System.from_zarr(tmp_path / "s.zarr")).params, wanted, rtol=1e-12)
