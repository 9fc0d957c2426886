"""Every container that holds real numbers gives the same fit; what is missing in it is NaN; all else is refused."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.lib.recfunctions import structured_to_unstructured
from numpy.testing import assert_array_equal

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.errors import BadValues
from support.meaning import stack

N, K = 60, 3
RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(N), RNG.normal(size=N).round(2)])
Y = (1.0 + X[:, 1:] + RNG.normal(size=(N, 1)) + RNG.normal(size=(N, K))).round(2)
HOLES = np.where(RNG.random((N, K)) < 0.1, np.nan, Y)
GROUPS = np.arange(N) // 5
YNAMES, XNAMES = ["a", "b", "c"], ["one", "x"]


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=YNAMES if values.shape[1] == K else XNAMES)


def mixed(values: np.ndarray) -> pd.DataFrame:
    made = frame(values).astype({frame(values).columns[1]: "Float64"})
    return made.astype({made.columns[0]: "double[pyarrow]"})


def masked(values: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(np.nan_to_num(values, nan=-99.0), np.isnan(values))


def in_xarray(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(masked(values), dims=("obs", "equation"))


CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "nullable": lambda values: frame(values).convert_dtypes(),
    "arrow": lambda values: frame(values).astype("double[pyarrow]"),
    "arrow converted": lambda values: frame(values).convert_dtypes(dtype_backend="pyarrow"),
    "mixed": mixed,
    "sparse": lambda values: frame(values).astype(pd.SparseDtype("float64", 0.0)),
    "Dask frame": lambda values: dd.from_pandas(frame(values), npartitions=3),
    "Dask mixed": lambda values: dd.from_pandas(mixed(values), npartitions=4, sort=False),
    "Dask arrow": lambda values: dd.from_pandas(frame(values).astype("double[pyarrow]"), npartitions=2),
    "masked": masked,
    "masked in Dask": lambda values: da.from_array(masked(values), chunks=(7, -1)),
    "masked in xarray": in_xarray,
    "big endian": lambda values: values.astype(">f8"),
    "big endian in Dask": lambda values: da.from_array(values.astype(">f8"), chunks=(9, -1)),
    "Fortran": np.asfortranarray,
    "strided": lambda values: np.repeat(np.repeat(values, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda values: values[::-1].copy()[::-1],
    "read-only": lambda values: np.broadcast_to(values, values.shape),
    "matrix": lambda values: values.view(np.matrix),
}
each_container = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


@pytest.fixture(scope="module")
def plain() -> Fit:
    return LowRankGLS(rank=1).fit(System.from_arrays(Y, X, equations=YNAMES, regressors=XNAMES)).result_


@each_container
def test_rows_enter_alike_everywhere(container: Callable[[np.ndarray], Any], plain: Fit) -> None:
    y, x = container(Y), container(X)
    system = System.from_arrays(y, x, equations=YNAMES, regressors=XNAMES)
    np.testing.assert_allclose(LowRankGLS(rank=1).fit(system).result_.coefficients, plain.coefficients, rtol=1e-8)
    listed = System.from_arrays(y, [x] * K, equations=YNAMES, regressors=XNAMES)
    assert listed.n_regressors == 2
    assert plain.system is not None
    np.testing.assert_allclose(LowRankGLS(rank=1).fit(listed).score(plain.system), plain.loglik / N, rtol=1e-8)
    np.testing.assert_allclose(plain.predict(x), plain.predict(X), rtol=1e-12)
    appended = system.append(plain.system)
    assert appended.n_obs == 2 * N
    np.testing.assert_allclose(plain.residuals(system), plain.residuals(plain.system), atol=1e-12)


@each_container
@pytest.mark.parametrize("algorithm", ["em", "drop"])
def test_what_is_missing_is_nan(container: Callable[[np.ndarray], Any], algorithm: str, plain: Fit) -> None:
    y = container(HOLES)
    system = System.from_arrays(y, X, equations=YNAMES, regressors=XNAMES)
    wanted = System.from_arrays(HOLES, X, equations=YNAMES, regressors=XNAMES)
    model = LowRankGLS(rank=0, missing=algorithm)
    np.testing.assert_allclose(model.fit(system).result_.coefficients, model.fit(wanted).result_.coefficients)
    np.testing.assert_allclose(plain.predict_given(X, y), plain.predict_given(X, HOLES), rtol=1e-12)
    np.testing.assert_allclose(plain.impute(system)["Y"], plain.impute(wanted)["Y"], rtol=1e-12)
    with pytest.raises(BadValues, match="NaN"):
        LowRankGLS(rank=0).fit(system)


VECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "nullable": lambda values: pd.Series(values).convert_dtypes(),
    "arrow": lambda values: pd.Series(values, dtype="int64[pyarrow]"),
    "array": lambda values: pd.array(values, dtype="Int64"),
    "index": lambda values: pd.Index(values),
    "Dask": lambda values: dd.from_pandas(pd.Series(values, dtype="Int64"), npartitions=3),
    "masked": np.ma.masked_array,
    "in xarray": lambda values: xr.DataArray(pd.array(values, dtype="Int64"), dims="obs"),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_weights_and_groups(vector: Callable[[np.ndarray], Any], plain: Fit) -> None:
    weights = np.arange(1, N + 1)
    of_weights = System.from_arrays(Y, X, weights=vector(weights)).compress()
    np.testing.assert_allclose(of_weights.rows.root, System.from_arrays(Y, X, weights=weights).compress().rows.root)
    made = System.from_arrays(Y, X, equations=YNAMES, regressors=XNAMES, groups=vector(GROUPS))
    wanted = plain.cov("cluster", groups=GROUPS)
    np.testing.assert_allclose(plain.cov("cluster", system=made), wanted)
    np.testing.assert_allclose(plain.cov("cluster", groups=vector(GROUPS)), wanted)
    assert plain.system is not None
    assert list(plain.system.compress(by=vector(GROUPS))) == list(range(12))


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([None, *GROUPS[1:]], dtype="Int64"),
        np.ma.masked_array(GROUPS, np.arange(N) == 0),
        np.array([None, *["g"] * (N - 1)], dtype=object),
        pd.Categorical([None, *GROUPS[1:]]),
        dd.from_pandas(pd.Series([None, *GROUPS[1:]], dtype="Int64"), npartitions=2),
    ],
    ids=["nullable", "masked", "objects", "categories", "Dask"],
)
def test_missing_labels_of_rows(labels: Any, plain: Fit) -> None:
    assert plain.system is not None
    for call, name in ((plain.system.compress, "by"), (lambda groups: plain.cov("cluster", groups=groups), "groups")):
        with pytest.raises(ValueError, match=f"{name}: the label of row 0 is missing, 1 such labels in all"):
            call(**{name: labels})


def test_datasets_of_extension_arrays(plain: Fit) -> None:
    both = pd.concat([frame(Y), frame(X)], axis=1).convert_dtypes().rename_axis("obs")
    ds = xr.Dataset.from_dataframe(both)
    system = System.from_xarray(ds, "a", XNAMES, weights="one")
    np.testing.assert_allclose(
        LowRankGLS(rank=0).fit(system).result_.coefficients, np.linalg.lstsq(X, Y[:, 0])[0], rtol=1e-8
    )
    np.testing.assert_allclose(plain.predict(ds), plain.predict(X), rtol=1e-12)


# ------------------------------------------------------------------------------------------------- Dask frames


def test_labels_of_dask_frames_come_back_and_are_paired(plain: Fit) -> None:
    index = pd.date_range("2000", periods=N, name="Date")
    y, x = (dd.from_pandas(frame(values).set_index(index), npartitions=4) for values in (Y, X))
    system = System.from_arrays(y, x)
    assert system.equations == tuple(YNAMES) and system.regressors == tuple(XNAMES)
    assert system.obs.equals(index) and system.obs_dim == "Date"
    found = plain.predict(x).to_pandas()
    assert found.index.equals(index) and found.index.name == "Date"
    np.testing.assert_allclose(found, plain.predict(X), rtol=1e-12)
    part = dd.from_pandas(frame(Y).set_index(index)[["c"]], npartitions=2)
    np.testing.assert_allclose(plain.predict_given(x, part), plain.predict_given(X, frame(Y)[["c"]]), rtol=1e-12)
    np.testing.assert_allclose(plain.predict(x[["x", "one"]]), plain.predict(X), rtol=1e-12)
    later = dd.from_pandas(frame(X).set_index(index + pd.Timedelta(days=1)), npartitions=4)
    with pytest.raises(ValueError, match="Xs and Y have different labels along 'Date'"):
        System.from_arrays(y, later)
    with pytest.raises(ValueError, match="y and the data have different labels"):
        plain.predict_given(later, part)


def test_rows_that_dask_numbers_anew_are_numbered_through(tmp_path: Any, plain: Fit) -> None:
    for i in range(3):
        pd.concat([frame(Y), frame(X)], axis=1)[i * 20 : i * 20 + 20].to_csv(tmp_path / f"{i}.csv", index=False)
    table = dd.read_csv(str(tmp_path / "*.csv"))
    assert table.index.compute().tolist() == list(range(20)) * 3
    system = System.from_arrays(table[YNAMES], table[XNAMES])
    assert system.obs.equals(pd.RangeIndex(N))
    np.testing.assert_allclose(LowRankGLS(rank=1).fit(system).result_.coefficients, plain.coefficients, rtol=1e-8)
    assert System.from_arrays(table[YNAMES], frame(X)).n_obs == N


def test_dask_frames_are_counted_in_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def read(i: int) -> pd.DataFrame:
        reads.append(i)
        return pd.concat([frame(Y), frame(X)], axis=1)[i * 20 : i * 20 + 20]

    meta = pd.concat([frame(Y), frame(X)], axis=1)[:0]
    table = dd.from_map(read, range(3), meta=meta)
    system = System.from_arrays(table[YNAMES], [table[XNAMES]] * K)
    assert system.n_obs == N and len(reads) <= 6  # the frame and its selection, together


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "values",
    [
        [decimal.Decimal("1.5")] * N,
        [1.5, None, *[2] * (N - 2)],
        [1.5, pd.NA, *[2] * (N - 2)],
        [decimal.Decimal("1.5"), pd.NA, *[2] * (N - 2)],
        ["1.5"] * N,
        ["1.5", pd.NA, *["2"] * (N - 2)],
    ],
    ids=["decimals", "None", "NA", "decimals and NA", "text", "text and NA"],
)
def test_the_remedy_for_objects_works(values: list[Any]) -> None:
    Xs = pd.DataFrame({"u": pd.Series(values, dtype=object)})
    with pytest.raises(TypeError, match=r"Xs\['u'\] has dtype object .* with \.astype\('Float64'\)") as error:
        System.from_arrays(Y, Xs)
    dtype = str(error.value).split(".astype('")[1].split("'")[0]
    assert System.from_arrays(Y, Xs.astype(dtype)).n_obs == N
    if not any(each is pd.NA for each in values):
        with pytest.raises(TypeError, match=r"Xs has dtype object .* with \.astype\('float64'\)"):
            System.from_arrays(Y, Xs.to_numpy())
        assert System.from_arrays(Y, Xs.to_numpy().astype("float64")).n_obs == N


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (pd.Series(["a"] * N, dtype="string"), r"weights has dtype string \(string\)"),
        (pd.Series(pd.date_range("2000", periods=N, tz="UTC")), r"weights has dtype datetime64.*count from an origin"),
        (pd.Series(pd.period_range("2000", periods=N)), r"weights has dtype period"),
        (pd.Series(pd.interval_range(0, N)), r"weights has dtype interval"),
        (np.array(1.0), r"weights has shape \(\)"),
        (np.zeros(N, dtype=[("u", "f8"), ("v", "f8")]), r"weights has dtype .*structured_to_unstructured"),
        (dd.from_pandas(pd.Series(["a"] * N), npartitions=2), r"weights has dtype string"),
        (np.ma.masked_array(np.ones(N) + 1j), r"weights has dtype complex128"),
    ],
)
def test_other_kinds_are_refused_by_name(values: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        System.from_arrays(Y, X, weights=values)


def test_shapes_that_are_no_table() -> None:
    for wrong in (np.array(1.0), da.from_array(np.array(1.0))):
        with pytest.raises(ValueError, match="Y has 0 dimensions"):
            System.from_arrays(wrong, X)
    fields = np.zeros(N, dtype=[("u", "f8"), ("v", "f8")])
    taken = structured_to_unstructured(fields)
    assert System.from_arrays(Y, taken).n_regressors == 2


def test_a_few_columns_of_files_have_the_partitions_that_were_counted(tmp_path):
    names = [f"c{i}" for i in range(40)]  # of which Dask reads few from several row groups at once
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 40)), columns=names)
    table.to_parquet(tmp_path / "t.parquet", row_group_size=50)
    frame = dd.read_parquet(tmp_path / "t.parquet", split_row_groups=True)
    system = System.from_arrays(frame[names[:2]], frame[names[2:5]], weights=frame["c7"] ** 2, groups=frame["c8"] > 0)
    assert_array_equal(stack(system.rows.y), table[names[:2]])
    assert_array_equal(stack(system.rows.x), table[names[2:5]])
    assert system.groups_of_rows().tolist() == (table["c8"] > 0).tolist()
    assert system.rows.y[0].row_chunks == (50,) * 8
