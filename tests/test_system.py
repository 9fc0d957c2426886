"""Constructors of System: the same design from every route, labels kept, nothing read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from lrgls_dask.system import System
from support.meaning import designs, stack

N, K = 30, 3
EQUATIONS = ("NoDur", "Durbl", "Telcm")


@pytest.fixture
def ds() -> xr.Dataset:
    rng = np.random.default_rng(1)
    return xr.Dataset(
        {
            "ret": (("time", "portfolio"), rng.normal(size=(N, K))),
            "const": ("time", np.ones(N)),
            "smb": ("time", rng.normal(size=N)),
            "lag": (("time", "portfolio"), rng.normal(size=(N, K))),
            "factors": (("time", "factor"), rng.normal(size=(N, 2))),
            "own": (("time", "portfolio", "term"), rng.normal(size=(N, K, 2))),
            "size": ("time", rng.uniform(1, 2, size=N)),
            "decade": ("time", np.arange(N) // 10),
        },
        coords={
            "time": pd.date_range("1949-01-31", periods=N, freq="ME"),
            "portfolio": list(EQUATIONS),
            "factor": ["mktrf", "hml"],
            "term": [1, 2],
        },
    )


def from_xarray(ds: xr.Dataset, x: Any, **options: Any) -> System:
    return System.from_xarray(ds, "ret", x, obs="time", equation="portfolio", **options)


def test_shared_variables_are_stored_once_and_form_one_group(ds):
    system = from_xarray(ds, ["const", "smb", "factors"])
    assert (system.n_obs, system.n_equations, system.n_regressors, system.n_coefficients) == (N, K, 4, 12)
    assert system.regressors == ("const", "smb", "mktrf", "hml")
    assert system.design.terms == (system.regressors,) * K
    assert len(system.design.groups) == 1
    assert system.dims == ("time", "portfolio")
    assert system.obs.equals(ds.indexes["time"])


def test_a_variable_with_the_equation_dim_gives_each_equation_its_own_column(ds):
    system = from_xarray(ds, ["const", "lag", "own"])
    assert system.regressors[1:4] == ("lag[NoDur]", "lag[Durbl]", "lag[Telcm]")
    assert system.design.terms == (("const", "lag", "own[1]", "own[2]"),) * K
    meaning = designs(system)
    assert meaning["Durbl"]["lag"] == ds["lag"].sel(portfolio="Durbl").values.tolist()
    assert meaning["Telcm"]["own[2]"] == ds["own"].sel(portfolio="Telcm", term=2).values.tolist()
    assert meaning["Telcm"][None] == ds["ret"].sel(portfolio="Telcm").values.tolist()


def test_a_mapping_stores_only_the_columns_that_are_used(ds):
    system = from_xarray(ds, {"Telcm": ["const", "lag"], "NoDur": ["own", "smb"], "Durbl": ["lag"]})
    assert system.design.terms == (("own[1]", "own[2]", "smb"), ("lag",), ("const", "lag"))
    assert system.n_regressors == 6
    meaning = designs(system)
    assert meaning["Telcm"]["lag"] == ds["lag"].sel(portfolio="Telcm").values.tolist()
    assert meaning["Durbl"]["lag"] == ds["lag"].sel(portfolio="Durbl").values.tolist()
    assert meaning["NoDur"]["own[1]"] == ds["own"].sel(portfolio="NoDur", term=1).values.tolist()


@settings(deadline=None, max_examples=30)
@given(time=st.integers(1, N), portfolio=st.integers(1, K), term=st.integers(1, 2), turn=st.booleans())
def test_chunks_and_the_order_of_dims_are_not_visible(time, portfolio, term, turn):
    rng = np.random.default_rng(2)
    plain = xr.Dataset(
        {
            "ret": (("time", "portfolio"), rng.normal(size=(N, K))),
            "lag": (("time", "portfolio"), rng.normal(size=(N, K))),
            "own": (("time", "portfolio", "term"), rng.normal(size=(N, K, 2))),
        },
        coords={"portfolio": list(EQUATIONS)},
    )
    chunked = plain.chunk(time=time, portfolio=portfolio, term=term)
    chunked = chunked.transpose("portfolio", "term", "time") if turn else chunked
    expected, system = from_xarray(plain, ["lag", "own"]), from_xarray(chunked, ["lag", "own"])
    assert system.design.same_as(expected.design)
    assert designs(system) == designs(expected)
    assert all(sum(part.row_chunks) == N and max(part.row_chunks) <= time for part in system.rows.parts)
    assert all(part.array.ndim == 1 or part.array.numblocks[1] == 1 for part in system.rows.parts)


def test_labels_of_an_extra_dim_that_are_taken_carry_the_name_of_their_variable(ds):
    system = from_xarray(ds.assign_coords(factor=["smb", "hml"]), ["smb", "factors"])
    assert system.regressors == ("smb", "factors[smb]", "factors[hml]")


def test_data_arrays_stand_in_for_names_and_equations_are_put_in_order(ds):
    turned = ds["lag"].isel(portfolio=[2, 0, 1]).rename("turned")
    system = System.from_xarray(None, ds["ret"], [ds["const"], turned], obs="time", equation="portfolio")
    assert designs(system) == designs(from_xarray(ds.rename(lag="turned"), ["const", "turned"]))


def test_two_data_arrays_of_one_name_are_two_columns(ds):
    x = {name: [ds["const"], (ds["smb"] + j).rename("lag")] for j, name in enumerate(EQUATIONS)}
    system = System.from_xarray(None, ds["ret"], x, obs="time", equation="portfolio")
    assert system.regressors == (
        "const[NoDur]",
        "lag[NoDur]",
        "const[Durbl]",
        "lag[Durbl]",
        "const[Telcm]",
        "lag[Telcm]",
    )
    assert designs(system)["Telcm"]["lag"] == (ds["smb"] + 2).values.tolist()


def test_a_response_along_obs_only_is_one_equation(ds):
    one = ds["ret"].sel(portfolio="Durbl", drop=True).rename("Durbl")
    system = System.from_xarray(ds, one, ["const", "smb"], obs="time")
    assert system.equations == ("Durbl",) and system.n_coefficients == 2


def test_weights_and_groups_are_kept(ds):
    system = from_xarray(ds, ["const"], weights="size", groups="decade")
    assert_array_equal(system.rows.weights.array, ds["size"].values)
    assert_array_equal(system.groups, ds["decade"].values)
    assert system.column_name("weights", 0) == "weights['size']"
    lazy = from_xarray(ds.chunk(time=7), ["const"], weights="size", groups="decade")
    assert lazy.groups.row_chunks == lazy.rows.weights.row_chunks == (7, 7, 7, 7, 2)


def test_a_file_opened_without_chunks_is_cut_and_not_loaded(ds, tmp_path, monkeypatch):
    ds[["ret", "const", "lag"]].to_netcdf(tmp_path / "file.nc")
    monkeypatch.setattr("lrgls_dask.data.sources.BLOCK_BYTES", 10 * 8 * K)
    with xr.open_dataset(tmp_path / "file.nc") as opened:
        system = from_xarray(opened, ["const", "lag"])
        assert not opened["ret"].variable._in_memory
        assert system.rows.y[0].row_chunks == (10, 10, 10)
        assert designs(system) == designs(from_xarray(ds, ["const", "lag"]))


def test_a_multi_index_along_obs_is_kept(ds):
    index = pd.MultiIndex.from_product([["US", "DE", "FR"], range(10)], names=["country", "year"])
    stacked = ds.drop_vars("time").assign_coords(xr.Coordinates.from_pandas_multiindex(index, "time"))
    assert from_xarray(stacked, ["const"]).obs.tolist() == index.tolist()


# ---- arrays


def arrays() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(N, K)), [rng.normal(size=(N, p)) for p in (1, 3, 2)]


def test_all_routes_from_arrays_agree(tmp_path):
    y, xs = arrays()
    shared = System.from_arrays(y, xs[1])
    incidence = np.ones((3, K), dtype=bool)
    group = zarr.open_group(tmp_path / "z.zarr", mode="w")
    stored = group.create_array("x", shape=(N, 3), chunks=(8, 2), dtype="f8")
    stored[:] = xs[1]
    others = [
        System.from_arrays(y, xs[1], incidence=incidence),
        System.from_arrays(y, xs[1], incidence=sp.csr_array(incidence)),
        System.from_arrays(y, [xs[1]] * K),
        System.from_arrays(da.from_array(y, chunks=(7, 2)), da.from_array(xs[1], chunks=(4, 1))),
        System.from_arrays(y, stored),
        System.from_arrays(y.tolist(), pd.DataFrame(xs[1], columns=["x0", "x1", "x2"])),
    ]
    assert shared.regressors == ("x0", "x1", "x2") and shared.equations == ("y0", "y1", "y2")
    for other in others:
        assert other.design.same_as(shared.design)
        assert designs(other) == designs(shared)
    assert others[4].rows.x[0].row_chunks == (8, 8, 8, 6)


def test_a_list_of_designs_keeps_each_and_names_columns_apart():
    y, xs = arrays()
    system = System.from_arrays(y, xs)
    assert system.regressors == ("x0[y0]", "x0[y1]", "x1[y1]", "x2", "x0[y2]", "x1[y2]")
    assert system.design.terms == (("x0",), ("x0", "x1", "x2"), ("x0", "x1"))
    for j, x in enumerate(xs):
        assert_array_equal(stack(system.rows.x)[:, system.design.columns[j]], x)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_same_array_twice_is_stored_once(lazy):
    y, (a, b, _) = arrays()
    if lazy:
        a, b = da.from_array(a, chunks=(9, -1)), da.from_array(b, chunks=(9, -1))
    again = b[:, :]  # another object, the same data
    system = System.from_arrays(y, [b, a, again], regressors=[["p", "q", "r"], ["s"], ["p", "q", "t"]])
    assert len(system.rows.x) == 2
    assert system.regressors == ("p", "q", "r", "s")
    assert system.design.terms[2] == ("p", "q", "t")
    assert [group.equations.tolist() for group in system.design.groups] == [[0, 2], [1]]


def test_incidence_selects_columns_and_names_them():
    y, (_, x, _) = arrays()
    incidence = [[1, 1, 0], [0, 1, 0], [1, 1, 1]]
    system = System.from_arrays(y, x, incidence=incidence, regressors=["a", "b", "c"], equations=EQUATIONS)
    assert system.design.terms == (("a", "c"), ("a", "b", "c"), ("c",))
    assert system.equations == EQUATIONS
    assert_array_equal(system.design.incidence().toarray(), np.array(incidence, dtype=bool))


def test_a_block_for_each_equation_may_be_three_dimensional():
    y, _ = arrays()
    x = np.random.default_rng(4).normal(size=(N, K, 2))
    listed = System.from_arrays(y, [x[:, j] for j in range(K)])
    for given_x in (x, da.from_array(x, chunks=(7, 2, 1))):
        assert designs(System.from_arrays(y, given_x)) == designs(listed)


def test_one_equation_may_be_a_vector():
    y, (_, x, _) = arrays()
    system = System.from_arrays(y[:, 0], [x])
    assert system.n_equations == 1 and system.rows.y[0].array.ndim == 1
    assert System.from_arrays(y[:, 0], x[:, 0]).n_coefficients == 1


def test_frames_bring_labels_and_plain_python_values_come_out():
    y, (_, x, _) = arrays()
    index = pd.period_range("2000-01", periods=N, freq="M")
    frame = pd.DataFrame(y, index=index, columns=np.array([10, 20, 30]))
    system = System.from_arrays(
        frame, pd.DataFrame(x, index=index, columns=list("abc")), weights=pd.Series(1, index=index)
    )
    assert system.equations == (10, 20, 30) and all(type(label) is int for label in system.equations)
    assert system.obs is index
    labelled = System.from_arrays(y, x, equations=np.array(["a", "b", "c"]), regressors=np.array(["u", "v", "w"]))
    assert all(type(label) is str for label in (*labelled.equations, *labelled.regressors))


def test_data_arrays_bring_labels_and_dims(ds):
    system = System.from_arrays(ds["ret"], ds["factors"].chunk(time=8), groups=ds["decade"])
    assert system.dims == ("time", "portfolio") and system.equations == EQUATIONS
    assert system.regressors == ("mktrf", "hml") and system.obs.equals(ds.indexes["time"])
    assert System.from_arrays(ds["smb"], ds["factors"]).equations == ("smb",)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i8", "u1", "?"])
def test_storage_dtypes_are_kept(dtype):
    y, (_, x, _) = arrays()
    system = System.from_arrays(y, x.astype(dtype))
    assert system.rows.x[0].array.dtype == np.dtype(dtype)


def test_frames_of_mixed_and_nullable_columns_become_float():
    y, _ = arrays()
    frame = pd.DataFrame({"a": pd.array([1, None] * 15, dtype="Int64"), "b": [True, False] * 15, "c": 1.5})
    system = System.from_arrays(y, frame)
    assert system.regressors == ("a", "b", "c")
    assert_array_equal(stack(system.rows.x)[:2], [[1, 1, 1.5], [np.nan, 0, 1.5]])


def test_dask_columns_are_not_rechunked_and_empty_chunks_vanish():
    y = da.ones((N, K), chunks=((10, 0, 20), (2, 1)))
    system = System.from_arrays(y, da.ones((N, 4), chunks=(11, (1, 3))))
    assert [part.n_columns for part in system.rows.y] == [2, 1]
    assert [part.n_columns for part in system.rows.x] == [1, 3]
    assert system.rows.y[0].row_chunks == (10, 20) and system.rows.x[0].row_chunks == (11, 11, 8)
    assert system.rows.y[0].row_chunks is system.rows.y[1].row_chunks


def test_construction_reads_nothing():
    def refuse(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("read")

    lazy = da.ones((N, K), chunks=(7, 2)).map_blocks(refuse, meta=np.empty((0, 0)))
    system = System.from_arrays(lazy, [lazy, lazy[:, :1], lazy], weights=lazy[:, 0], groups=lazy[:, 1])
    with pytest.raises(RuntimeError, match="read"):
        dask.compute(system.rows.y[0].array)


def test_names_and_repr_are_in_the_users_words(ds):
    system = from_xarray(ds, ["const", "lag"], weights="size")
    assert system.column_name("X", 2) == "regressor 'lag[Durbl]'"
    assert system.column_name("Y", 2) == "equation 'Telcm'"
    assert System.from_arrays(np.ones((5, 1)), np.ones((5, 1))).column_name("weights", 0) == "weights"
    text = repr(system)
    assert "3 equations on 30 rows: 4 distinct regressors, 6 coefficients" in text
    assert "'NoDur', 'Durbl', 'Telcm'" in text and "with weights" in text and "1949-01-31" in text


def test_the_size_in_repr_has_a_readable_unit():
    big = da.zeros((10**10, 10**2), chunks=(10**6, -1))
    assert "8.08 TB" in repr(System.from_arrays(big[:, 0], big))


def test_a_store_opened_by_xarray_and_directly_is_the_same_system(ds, tmp_path: Path):
    system = from_xarray(ds, ["const", "smb"])
    system.to_zarr(tmp_path / "s.zarr")
    opened = xr.open_zarr(tmp_path / "s.zarr")
    other = System.from_xarray(opened, "Y", ["X"], obs="time", equation="portfolio")
    assert designs(other) == designs(system) == designs(System.from_zarr(tmp_path / "s.zarr"))
