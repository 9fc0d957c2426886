"""Rows are paired by label, or not at all: every input that has a value for each row, in every container."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from lrgls_dask.data.storedlabels import StoredLabels
from lrgls_dask.varying.labels import segments_of
from support.fits import fit
from support.sandwiches import meat, off_by, scores
from support.systems import Data

N, K = 60, 3
RNG = np.random.default_rng(7)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
GROUPS = np.arange(N) // 6
Y = 1.0 + X[:, 1:] + RNG.normal(size=(10, K))[GROUPS] + 0.3 * RNG.normal(size=(N, K))
ORDER = RNG.permutation(N)
INDEXES = {
    "default": pd.RangeIndex(N),
    "numbers": pd.Index(np.arange(N) * 3 + 5),
    "dates": pd.date_range("1990-01-31", periods=N, freq="ME"),
    "zone": pd.date_range("1990-01-31", periods=N, tz="Europe/Berlin"),
    "text": pd.Index([f"r{i}" for i in range(N)]),
    "pairs": pd.MultiIndex.from_product([["AT", "BE", "CH"], range(N // 3)]),
}
each_index = pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)


def frame(values: Any, index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(values), index=index)


def series(values: Any, index: pd.Index) -> pd.Series:
    return pd.Series(np.asarray(values), index=index)


def array(values: Any, index: pd.Index) -> xr.DataArray:
    values = np.asarray(values)
    dims = ("obs", "column")[: values.ndim]
    coords = xr.Coordinates.from_pandas_multiindex(index, "obs") if isinstance(index, pd.MultiIndex) else {"obs": index}
    return xr.DataArray(values, coords, dims)


def lazy(values: Any, index: pd.Index) -> xr.DataArray:
    return array(values, index).chunk({"obs": 7})


by_row = pytest.mark.parametrize("labelled", [series, array, lazy])
by_table = pytest.mark.parametrize("labelled", [frame, array, lazy])


def check_refused(call: Callable[[], Any], first: str, second: str, at: int) -> str:
    with pytest.raises(ValueError, match=f"{re.escape(first)} and {re.escape(second)} have different labels") as error:
        call()
    assert f"first difference at position {at}" in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------- what makes a system


@each_index
@by_table
def test_designs_in_another_order_are_refused(labelled: Any, index: pd.Index) -> None:
    moved = int((np.arange(N) != ORDER).argmax())
    Ys, Xs, shuffled = frame(Y, index), labelled(X, index), labelled(X[ORDER], index[ORDER])
    made = fit(System.from_arrays(Ys, Xs), rank=0)
    np.testing.assert_allclose(made.coefficients[:2], np.linalg.lstsq(X, Y[:, 0])[0], rtol=1e-9)
    text = check_refused(lambda: System.from_arrays(Ys, shuffled), "Xs", "Y", moved)
    labels = index.tolist()
    assert f"({labels[ORDER[moved]]!r} against {labels[moved]!r})" in text
    check_refused(lambda: System.from_arrays(Ys, [X, Xs, shuffled]), "Xs[2]", "Y", moved)
    check_refused(lambda: System.from_arrays(Y, [X, Xs, shuffled]), "Xs[2]", "Xs[1]", moved)


@each_index
@by_row
@pytest.mark.parametrize("role", ["weights", "groups"])
def test_vectors_in_another_order_are_refused(role: str, labelled: Any, index: pd.Index) -> None:
    moved = int((np.arange(N) != ORDER).argmax())
    values = np.arange(1, N + 1)
    wrong: dict[str, Any] = {role: labelled(values[ORDER], index[ORDER])}
    right: dict[str, Any] = {role: labelled(values, index)}
    assert System.from_arrays(frame(Y, index), X, **right).obs.equals(index)
    assert System.from_arrays(Y, X, **right).obs.equals(index)
    check_refused(lambda: System.from_arrays(frame(Y, index), X, **wrong), role, "Y", moved)
    check_refused(lambda: System.from_arrays(Y, frame(X, index), **wrong), role, "Xs", moved)


def test_numbers_from_elsewhere_are_no_numbering() -> None:
    """A frame cut out of another keeps the numbers of its rows, which say that they are other rows."""
    check_refused(
        lambda: System.from_arrays(frame(Y, pd.RangeIndex(N)), frame(X, pd.RangeIndex(100, 100 + N))), "Xs", "Y", 0
    )
    check_refused(
        lambda: System.from_arrays(frame(Y, pd.RangeIndex(100, 100 + N)), frame(X, pd.RangeIndex(N))), "Xs", "Y", 0
    )
    check_refused(lambda: System.from_arrays(frame(Y, INDEXES["dates"]), frame(X, pd.RangeIndex(N))), "Xs", "Y", 0)
    last = pd.Index([*range(N - 1), N])
    check_refused(lambda: System.from_arrays(frame(Y, pd.RangeIndex(N)), frame(X, last)), "Xs", "Y", N - 1)


@each_index
def test_what_has_no_labels_goes_by_position(index: pd.Index) -> None:
    plain: list[Any] = [X, [X] * K, da.from_array(X, chunks=(7, 2)), zarr.array(X), xr.DataArray(X)]
    turned = index[ORDER]
    for Xs in plain:
        system = System.from_arrays(frame(Y, turned), Xs, weights=np.ones(N), groups=pd.Categorical(GROUPS))
        assert system.obs.equals(turned)
    assert System.from_arrays(Y, X, groups=pd.Index(GROUPS)).obs is None
    assert System.from_arrays(Y, frame(X, turned)).obs.equals(turned)


def test_the_remedy_is_taken_at_its_word() -> None:
    scope: dict[str, Any] = {"Y": frame(Y, INDEXES["dates"]), "Xs": frame(X, INDEXES["dates"]).iloc[ORDER]}
    for labelled in (scope["Xs"], array(X[ORDER], INDEXES["dates"][ORDER])):
        scope["Xs"] = labelled
        with pytest.raises(ValueError, match="Use ") as error:
            System.from_arrays(scope["Y"], labelled)
        mended = eval(str(error.value).split("Use ")[1].split(": the same labels")[0], scope)
        np.testing.assert_array_equal(mended, X)
        assert System.from_arrays(scope["Y"], mended).obs.equals(INDEXES["dates"])


@each_index
@pytest.mark.parametrize("labelled", [array, lazy])
def test_variables_in_another_order_are_refused(labelled: Any, index: pd.Index) -> None:
    y = array(Y, index).rename(column="equation").rename("y")
    x = labelled(X[:, 1], index).rename("x")
    assert System.from_xarray(None, y, [x]).obs.equals(index)
    assert System.from_xarray(None, y, [x], weights=(x**2).drop_vars(list(x.coords)).rename("w")).obs.equals(index)
    moved = int((np.arange(N) != ORDER).argmax())
    check_refused(lambda: System.from_xarray(None, y, [x.isel(obs=ORDER)]), "x['x']", "y['y']", moved)
    other = (x**2).isel(obs=ORDER).rename("w")
    check_refused(lambda: System.from_xarray(None, y, [x], weights=other), "weights['w']", "y['y']", moved)


def test_rows_come_first_and_blocks_in_the_order_of_the_equations() -> None:
    square = xr.DataArray(RNG.normal(size=(N, N)), dims=("regressor", "time"))
    y = xr.DataArray(Y, dims=("time", "equation"))
    with pytest.raises(ValueError, match=r"'time', must come first. Use .transpose\('time'"):
        System.from_arrays(y, square, incidence=np.ones((N, K), dtype=bool))
    blocks = xr.DataArray(RNG.normal(size=(N, K, 2)), {"equation": ["c", "b", "a"]}, ("obs", "equation", "regressor"))
    with pytest.raises(ValueError, match="Xs has 'c' where the equation is 'a', at position 0"):
        System.from_arrays(Y, blocks, equations=["a", "b", "c"])
    assert System.from_arrays(Y, blocks.sel(equation=["a", "b", "c"]), equations=["a", "b", "c"]).n_coefficients == 6


# ------------------------------------------------------------------------------------------- what comes later


def known(where: str, index: pd.Index, tmp_path: Any) -> System:
    """The same labelled rows: of frames, of DataArrays, in a store."""
    if where == "arrays":
        y = lazy(Y, index).rename(column="equation").rename("y")
        return System.from_xarray(None, y, [array(X[:, 0], index).rename("c"), array(X[:, 1], index).rename("x")])
    system = System.from_arrays(frame(Y, index), frame(X, index))
    if where == "store":
        system.to_zarr(tmp_path / "s.zarr")
        system = System.from_zarr(tmp_path / "s.zarr")
    return system


@pytest.mark.parametrize("where", ["frames", "arrays", "store"])
@each_index
@by_row
def test_groups_that_come_later_go_by_label(labelled: Any, index: pd.Index, where: str, tmp_path: Any) -> None:
    made = fit(known(where, index, tmp_path), rank=1)
    columns = tuple(np.arange(2) for _ in range(K))
    data = Data("shared", Y, X, columns)
    inverse = np.linalg.inv(data.dense().normal_matrix(made.sigma().values))
    wanted = inverse @ meat(scores(made, data), groups=GROUPS) @ inverse
    right, wrong = labelled(GROUPS, index), labelled(GROUPS[ORDER], index[ORDER])
    assert off_by(made.cov("cluster", groups=right), wanted) < 1e-10
    assert off_by(made.with_cov("cluster", groups=right).cov(), wanted) < 1e-10
    moved = int((np.arange(N) != ORDER).argmax())
    for name, call in {
        "groups": lambda: made.cov("cluster", groups=wrong),
        "by": lambda: made.system.compress(by=wrong),
        "segments": lambda: segments_of(wrong, made.system),
    }.items():
        text = check_refused(call, name, "the system", moved)
        assert f"Use {name}.reindex(" in text
    check_refused(lambda: made.with_cov("cluster", groups=wrong), "groups", "the system", moved)
    check_refused(lambda: made.bootstrap(9, "cluster", groups=wrong), "groups", "the system", moved)
    drawn = made.bootstrap(9, "cluster", groups=right, seed=1)
    np.testing.assert_array_equal(drawn.params, made.bootstrap(9, "cluster", groups=GROUPS, seed=1).params)
    parts = made.system.compress(by=right)
    assert {label: part.n_obs for label, part in parts.items()} == dict.fromkeys(range(10), 6)
    labels, runs = segments_of(right, made.system)
    assert labels.tolist() == list(range(10)) and runs.edges.tolist() == list(range(0, N + 1, 6))


def test_groups_without_labels_go_by_position() -> None:
    made = fit(System.from_arrays(frame(Y, INDEXES["dates"]), X), rank=0)
    wanted = made.cov("cluster", groups=GROUPS).values
    for groups in (
        GROUPS.tolist(),
        da.from_array(GROUPS, chunks=7),
        zarr.array(GROUPS),
        xr.DataArray(GROUPS, dims="t"),
    ):
        np.testing.assert_array_equal(made.cov("cluster", groups=groups), wanted)
    by_position = fit(System.from_arrays(Y, X), rank=0)  # of a system without labels nothing can be said
    np.testing.assert_array_equal(by_position.cov("cluster", groups=series(GROUPS, INDEXES["dates"])), wanted)


def test_a_time_varying_fit_goes_by_label() -> None:
    index, wrong = INDEXES["dates"], series(np.arange(N) // 30, INDEXES["dates"]).iloc[ORDER]
    system = System.from_arrays(frame(Y, index), X)
    with pytest.raises(ValueError, match="segments and the system have different labels"):
        LowRankGLS(covariance=TimeVarying(1, wrong, bandwidth=0.0)).fit(system)
    made: Any = LowRankGLS(covariance=TimeVarying(1, wrong.sort_index(), bandwidth=0.0)).fit(system).result_
    with pytest.raises(ValueError, match="segments and the system have different labels"):
        made.score(system, wrong)
    with pytest.raises(ValueError, match="groups and the system have different labels"):
        made.cov("cluster", groups=wrong)


def test_stored_labels_are_read_only_to_be_compared(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(known("store", INDEXES["dates"], tmp_path), rank=0)
    reads: list[int] = []
    read = StoredLabels.read
    monkeypatch.setattr(StoredLabels, "read", lambda self: reads.append(1) or read(self))
    made.cov("cluster", groups=GROUPS)
    assert reads == []
    made.cov("cluster", groups=series(GROUPS, INDEXES["dates"]))
    made.system.compress(by=series(GROUPS, INDEXES["dates"]))
    assert reads == [1]


# ------------------------------------------------------------------------------------------- prediction


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(System.from_arrays(Y, pd.DataFrame(X, columns=["c", "x"])), rank=1)


@pytest.mark.parametrize("method", ["predict_given", "factor_scores"])
@each_index
@pytest.mark.parametrize("labelled", [frame, array, lazy])
def test_responses_to_predict_from_go_by_label(labelled: Any, index: pd.Index, method: str, found: Fit) -> None:
    call = getattr(found, method)
    moved = int((np.arange(N) != ORDER).argmax())
    names = [f"y{j}" for j in range(K)]

    def responses(rows: Any) -> Any:
        y = labelled(Y[rows], index[rows])
        if isinstance(y, pd.DataFrame):
            return y.set_axis(names, axis=1)
        return y.rename(column="equation").assign_coords(equation=names)

    right, wrong = responses(np.arange(N)), responses(ORDER)
    new = pd.DataFrame(X, index, ["c", "x"])
    data = {"the data": new}
    if not isinstance(index, pd.MultiIndex):
        data["the data as a Dataset"] = new.rename_axis("obs").to_xarray()
        data["the data in Dask"] = dd.from_pandas(new, npartitions=3, sort=False)
    wanted = call(X, Y).values
    for each in data.values():
        np.testing.assert_allclose(call(each, right).values, wanted, rtol=1e-12)
        check_refused(lambda each=each: call(each, wrong), "y", "the data", moved)
        np.testing.assert_allclose(call(each, Y).values, wanted, rtol=1e-12)
