"""Weights as users give them: of rows, cells or equations, in every container, by label or by shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import BadValues
from support.cells import weighted_cells
from support.systems import dask_rows, zarr_rows

DATA = weighted_cells(n=60, K=3)
NAMES = ["a", "b", "c"]
DAYS = pd.date_range("2020-01-01", periods=60, name="day")


def params(system: System) -> np.ndarray:
    return np.asarray(LowRankGLS(0, rel_tol=1e-13).fit(system).result_.params)


EXPECTED = params(System.from_arrays(DATA.Y, DATA.X, weights=DATA.W))
FRAME = pd.DataFrame(DATA.Y, DAYS, NAMES)
REGRESSORS = pd.DataFrame(DATA.X, DAYS, ["one", "x", "z"])
WEIGHTS = pd.DataFrame(DATA.W, DAYS, NAMES)

CONTAINERS: dict[str, Callable[[], System]] = {
    "frames": lambda: System.from_arrays(FRAME, REGRESSORS, weights=WEIGHTS),
    "columns in another order": lambda: System.from_arrays(FRAME, REGRESSORS, weights=WEIGHTS[["c", "a", "b"]]),
    "mapping": lambda: System.from_arrays(FRAME, REGRESSORS, weights={n: WEIGHTS[n] for n in ["b", "c", "a"]}),
    "mapping of arrays": lambda: System.from_arrays(
        FRAME, REGRESSORS, weights={n: DATA.W[:, [j]] for j, n in enumerate(NAMES)}
    ),
    "dask": lambda: System.from_arrays(
        da.from_array(DATA.Y, chunks=(7, 2)), dask_rows(20)(DATA.X), weights=da.from_array(DATA.W, chunks=(11, 1))
    ),
    "zarr": lambda: System.from_arrays(*(zarr_rows(13)(a) for a in (DATA.Y, DATA.X)), weights=zarr_rows(7)(DATA.W)),
    "float32 and lists": lambda: System.from_arrays(DATA.Y, DATA.X, weights=DATA.W.tolist()),
    "dataarray": lambda: System.from_arrays(
        FRAME, REGRESSORS, weights=xr.DataArray(WEIGHTS[["b", "a", "c"]], dims=("day", "equation"))
    ),
}


@pytest.mark.parametrize("kind", list(CONTAINERS))
def test_weights_of_cells_in_every_container(kind: str) -> None:
    system = CONTAINERS[kind]()
    np.testing.assert_allclose(params(system), EXPECTED, rtol=1e-10)
    assert "with weights of cells" in repr(system)
    assert system.n_regressors == 3


def dataset(**more: Any) -> xr.Dataset:
    return xr.Dataset(
        {
            "y": (("day", "firm"), DATA.Y),
            "x": (("day", "term"), DATA.X),
            "w": (("firm", "day"), DATA.W.T),
            "by_row": ("day", DATA.W[:, 0]),
            "by_firm": ("firm", [1.0, 2.0, 4.0]),
            **{f"w_{name}": ("day", DATA.W[:, j]) for j, name in enumerate(NAMES)},
            **more,
        },
        {"day": DAYS, "firm": NAMES, "term": ["one", "x", "z"]},
    )


def of_dataset(weights: Any, ds: xr.Dataset | None = None) -> System:
    return System.from_xarray(dataset() if ds is None else ds, "y", ["x"], obs="day", equation="firm", weights=weights)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("given", ["w", "mapping", "other order"])
def test_weights_of_cells_of_a_dataset(given: str, chunked: bool) -> None:
    ds = dataset().chunk({"day": 17, "firm": 2}) if chunked else dataset()
    weights: Any = {
        "w": "w",
        "mapping": {name: f"w_{name}" for name in reversed(NAMES)},
        "other order": ds["w"].isel(firm=[2, 0, 1]),
    }[given]
    np.testing.assert_allclose(params(of_dataset(weights, ds)), EXPECTED, rtol=1e-10)


def test_weights_of_rows_and_of_equations_of_a_dataset() -> None:
    rows, firms = of_dataset("by_row"), of_dataset("by_firm")
    assert (rows.rows.weighted, firms.rows.weighted) == ("rows", "equations")
    same = of_dataset({"a": "by_row", "b": "by_row", "c": "by_row"})
    assert same.rows.weighted == "cells"
    np.testing.assert_allclose(params(same), params(rows), rtol=1e-10)
    mixed = of_dataset({"a": 2.0, "b": "by_row", "c": 1.0})
    W = np.column_stack([np.full(60, 2.0), DATA.W[:, 0], np.ones(60)])
    np.testing.assert_allclose(params(mixed), params(System.from_arrays(DATA.Y, DATA.X, weights=W)), rtol=1e-10)


EQUATIONS: dict[str, Any] = {
    "array": [1.0, 2.0, 4.0],
    "row": [[1.0, 2.0, 4.0]],
    "series": pd.Series({"c": 4.0, "a": 1.0, "b": 2.0}),
    "mapping": {"c": 4.0, "b": 2.0, "a": 1},
    "dataarray": xr.DataArray([2.0, 4.0, 1.0], {"equation": ["b", "c", "a"]}, ("equation",)),
}


@pytest.mark.parametrize("kind", list(EQUATIONS))
def test_weights_of_equations(kind: str) -> None:
    system = System.from_arrays(FRAME, REGRESSORS, weights=EQUATIONS[kind])
    plain = LowRankGLS(1).fit(System.from_arrays(FRAME, REGRESSORS)).result_
    found = LowRankGLS(1).fit(system).result_
    root = np.sqrt([1.0, 2.0, 4.0])
    np.testing.assert_allclose(found.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(found.sigma(), plain.sigma() * np.outer(root, root), rtol=1e-7)
    assert "Weights: of equations" in found.summary()


def test_equations_of_equal_weight_go_on_sharing_columns() -> None:
    system = System.from_arrays(DATA.Y, DATA.X, weights=[2.0, 2.0, 2.0])
    assert system.design.n_regressors == system.n_regressors == 3
    assert System.from_arrays(DATA.Y, DATA.X, weights=[2.0, 1.0, 2.0]).design.n_regressors == 6
    assert LowRankGLS(0).plan(System.from_arrays(DATA.Y, DATA.X, weights=DATA.W)).n_regressors == 9


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(13), zarr_rows(13)], ids=["numpy", "dask", "zarr"])
def test_weights_of_rows(shape: tuple[int, ...], wrap: Any) -> None:
    w = DATA.W[:, 0]
    system = System.from_arrays(DATA.Y, DATA.X, weights=wrap(w.reshape(shape)))
    assert system.rows.weighted == "rows"
    same = np.tile(w[:, None], (1, 3))
    np.testing.assert_allclose(params(system), params(System.from_arrays(DATA.Y, DATA.X, weights=same)), rtol=1e-10)


def test_as_many_rows_as_equations_must_say_which() -> None:
    Y, x = DATA.Y[:3].T.copy(), np.ones((3, 1))
    Y = Y[:, :3]
    with pytest.raises(ValueError, match=r"3 entries for as many rows as equations.*\(3, 1\).*\(1, 3\)"):
        System.from_arrays(Y, x, weights=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="whose labels fit both"):
        System.from_arrays(Y, x, equations=[0, 1, 2], weights=pd.Series([1.0, 2.0, 3.0]))
    rows = System.from_arrays(Y, x, weights=[[1.0], [2.0], [3.0]])
    equations = System.from_arrays(Y, x, weights=[[1.0, 2.0, 3.0]])
    assert (rows.rows.weighted, equations.rows.weighted) == ("rows", "equations")
    labelled = System.from_arrays(pd.DataFrame(Y, columns=NAMES), x, weights=pd.Series([1.0, 2.0, 3.0], NAMES))
    assert labelled.rows.weighted == "equations"


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.ones(59), "weights has 59 rows but Y has 60, and 3 equations"),
        (np.ones((60, 2)), r"shape \(60, 2\) but there are N = 60"),
        (np.ones((60, 3, 1)), "but there are N = 60"),
        (WEIGHTS[["a", "b"]], r"shape \(60, 2\)"),
        (WEIGHTS.rename(columns={"a": "aa"}), r"lacks 'a' and has 'aa' besides"),
        ({"a": 1.0, "b": 2.0}, "must have one entry for each equation but lacks 'c'"),
        (
            {"a": 1.0, "b": 2.0, "c": np.ones(7)},
            r"weights\['c'\] has shape \(7,\) but must be a number, or one for each",
        ),
        (WEIGHTS.iloc[::-1], r"weights and Y have different labels"),
        ({n: WEIGHTS[n].iloc[::-1] for n in NAMES}, r"weights\['a'\] and Y have different labels"),
        (WEIGHTS.astype(str), "dtype"),
        ([1.0, -2.0, 1.0], "positive; found -2.0 for equation 'b'"),
        ([1.0, 0.0, 1.0], "positive; found 0.0 for equation 'b'"),
        ({"a": 1.0, "b": np.inf, "c": 1.0}, "positive; found inf for equation 'b'"),
        (np.zeros((60, 3)), "all zero"),
    ],
)
def test_refused_by_name(weights: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        System.from_arrays(FRAME, REGRESSORS, weights=weights)


def test_dims_that_no_weights_have() -> None:
    ds = dataset(v=(("day", "term"), DATA.X))
    with pytest.raises(ValueError, match=r"weights\['v'\] has dims .* must have 'day', 'firm' or both"):
        of_dataset("v", ds)
    with pytest.raises(ValueError, match="weights names 'nothing'"):
        of_dataset("nothing")


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(13), zarr_rows(13)], ids=["numpy", "dask", "zarr"])
@pytest.mark.parametrize("options", [{}, {"engine": "stream"}, {"missing": "em"}, {"missing": "drop"}])
def test_values_that_are_no_weight(value: float, wrap: Any, options: dict[str, Any]) -> None:
    W = DATA.W.copy()
    W[41, 1] = value
    with pytest.raises(ValueError, match=r"equation '?y1'?.* row 41"):
        LowRankGLS(0, **options).fit(System.from_arrays(DATA.Y, DATA.X, weights=wrap(W)))


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_weight_of_zero_is_named_with_its_remedy(engine: str) -> None:
    W = DATA.W.copy()
    W[41, 1] = 0.0
    system = System.from_arrays(DATA.Y, DATA.X, weights=W)
    with pytest.raises(BadValues, match=r"weights, equation 'y1': zero value at row 41 .*missing='em'.*missing='drop'"):
        LowRankGLS(0, engine=engine).fit(system)
    assert LowRankGLS(0, engine=engine, missing="drop").fit(system).result_.n_obs == 59
    assert LowRankGLS(0, engine=engine, missing="em").fit(system).result_.n_obs == 60


def test_bad_regressors_are_named_as_they_are_stored() -> None:
    X = DATA.X.copy()
    X[33, 2] = np.nan
    with pytest.raises(BadValues, match="X, regressor 'x2': NaN value at row 33 "):
        LowRankGLS(0).fit(System.from_arrays(DATA.Y, X, weights=DATA.W))


@pytest.mark.parametrize("kind", ["cells", "equations", "rows", "shared cells"])
def test_there_and_back(kind: str, tmp_path: Any) -> None:
    column = DATA.W[:, 0]
    given: Any = {
        "cells": "w",
        "equations": "by_firm",
        "rows": "by_row",
        "shared cells": {"a": "by_row", "b": "w_b", "c": "by_row"},
    }[kind]
    system = of_dataset(given)
    system.to_zarr(tmp_path / "a.zarr", row_chunk=17)
    opened = System.from_zarr(tmp_path / "a.zarr")
    np.testing.assert_allclose(params(opened), params(system), rtol=1e-10)
    stored = xr.open_zarr(tmp_path / "a.zarr")
    expected = {"cells": DATA.W, "equations": [1.0, 2.0, 4.0], "rows": column}
    expected["shared cells"] = np.column_stack([column, DATA.W[:, 1], column])
    np.testing.assert_array_equal(stored["weights"], expected[kind])
    assert stored["X"].shape == (60, 3)
    opened.to_zarr(tmp_path / "a.zarr", overwrite=True, row_chunk=60)  # the place of its own store
    np.testing.assert_allclose(params(System.from_zarr(tmp_path / "a.zarr")), params(system), rtol=1e-10)


def test_a_square_store_knows_its_weights(tmp_path: Any) -> None:
    Y, x = np.random.default_rng(0).normal(size=(3, 3)), np.ones((3, 1))
    for given, kind in (([[1.0], [2.0], [3.0]], "rows"), ([[1.0, 2.0, 3.0]], "equations")):
        System.from_arrays(Y, x, weights=given).to_zarr(tmp_path / kind)
        assert System.from_zarr(tmp_path / kind).rows.weighted == kind
