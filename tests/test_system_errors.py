"""Every way to hand System something wrong, and the words it answers with."""

from __future__ import annotations

import json
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from lrgls_dask import LowRankGLS
from lrgls_dask.design.design import Design
from lrgls_dask.rows.rows import Part, Rows
from lrgls_dask.system import System

N, K = 20, 3
Y, X = np.random.default_rng(1).normal(size=(N, K)), np.random.default_rng(2).normal(size=(N, 2))
PANEL = pd.MultiIndex.from_tuples([*(("US", i) for i in range(N - 1)), ("US", 1)])
DATES = pd.date_range("1949-01-31", periods=N, freq="ME")


def check_refused(match: str, kind: type[Exception] = ValueError, **changed: Any) -> None:
    """from_arrays with these arguments must fail with this message."""
    given = {"Y": Y, "Xs": X} | changed
    with pytest.raises(kind, match=match):
        System.from_arrays(given.pop("Y"), given.pop("Xs"), **given)


@pytest.fixture
def ds() -> xr.Dataset:
    return xr.Dataset(
        {
            "ret": (("time", "firm"), Y),
            "const": ("time", np.ones(N)),
            "smb": ("time", X[:, 0]),
            "lag": (("time", "firm"), Y),
            "cube": (("time", "a", "b"), np.ones((N, 2, 2))),
            "risk": ((), 1.0),
            "beta": ("firm", np.ones(K)),
            "name": ("time", np.array(["u"] * N)),
        },
        coords={"time": DATES, "firm": ["NoDur", "Durbl", "Telcm"]},
    )


def from_xarray(ds: xr.Dataset | None, x: Any, y: Any = "ret", **options: Any) -> System:
    return System.from_xarray(ds, y, x, **({"obs": "time", "equation": "firm"} | options))


# ---- rows and counts


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"Xs": X[:-1]}, "Xs has 19 rows but Y has 20: every array needs one row"),
        ({"Xs": [X, X[1:].copy(), X]}, r"Xs\[1\] has 19 rows but Y has 20"),
        ({"weights": np.ones(7)}, "weights has 7 rows but Y has 20"),
        ({"groups": np.arange(8)}, "groups has 8 rows but Y has 20"),
        ({"groups": da.arange(9)}, "groups has 9 rows but Y has 20"),
        ({"Y": Y[:0], "Xs": X[:0]}, "Y has no rows"),
        ({"Y": Y[:, :0]}, "Y has no equations"),
        ({"Xs": [X, X, X, X, X]}, "Xs holds 5 designs for 3 equations"),
        ({"Xs": np.ones((N, 4, 2))}, "Xs holds 4 designs for 3 equations"),
        ({"Xs": [X, np.ones((N, 0)), X]}, "equation 'y1' has no regressors"),
        ({"incidence": [[1, 1, 0], [1, 0, 0]]}, "equation 'y2' has no regressors"),
        ({"incidence": np.ones((3, 2), bool)}, r"incidence has shape \(3, 2\) but .* must be \(2, 3\)"),
        ({"incidence": np.full((2, 3), 2)}, "incidence has dtype int64 and entries other than 0 and 1"),
        ({"incidence": sp.csc_array(np.full((2, 3), 0.5))}, "incidence has dtype float64"),
        ({"Xs": [X] * 3, "incidence": np.ones((2, 3))}, "incidence goes with one .* but Xs is a list"),
        ({"Xs": np.ones((N, 3, 2)), "incidence": np.ones((2, 3))}, "incidence goes with one .* but Xs is 3-D"),
        ({"Y": np.ones((N, 2, 2))}, r"Y has 3 dimensions, shape \(20, 2, 2\)"),
        ({"Xs": np.ones(())}, "Xs has 0 dimensions"),
        ({"Xs": [[X.tolist(), 3], X, X]}, r"Xs\[0\] is a list that makes no rectangular array"),
    ],
)
def test_shapes_that_do_not_fit(changed, match):
    check_refused(match, **changed)


@pytest.mark.parametrize(("p", "compressed"), [(20, False), (25, False), (25, True)])
def test_a_fit_to_no_more_rows_than_regressors_names_the_equation(p: int, compressed: bool) -> None:
    system = System.from_arrays(Y, [X, X, np.ones((N, p))])  # to be appended it need not have more
    system = system.compress() if compressed else system
    for refused in (LowRankGLS(1).plan, LowRankGLS(1).fit):
        with pytest.raises(ValueError, match=f"equation 'y2' has {p} regressors but there are only 20 rows"):
            refused(system)


# ---- dtypes and kinds of array


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.array([[1.0, "a"]] * N, dtype=object), r"Xs has dtype object .*astype"),
        (np.array([["a", "b"]] * N), r"Xs has dtype <U1 \(string\).*0/1 columns"),
        (np.array([["a", "b"]] * N, dtype=np.dtypes.StringDType()), r"Xs has dtype StringDType\(\) \(string\)"),
        (np.array([[b"a"]] * N), r"Xs has dtype \|S1 \(bytes\)"),
        (X + 1j, r"Xs has dtype complex128 .*\.real and \.imag"),
        (np.array([DATES.values]).T, r"Xs has dtype datetime64.*count from an origin"),
        (np.array([DATES.values - DATES.values[0]]).T, r"Xs has dtype timedelta64.*divide by a unit"),
        (np.zeros((N, 1), dtype=[("u", "f8")]), r"Xs has dtype .*not a plain number"),
        (X.astype(np.longdouble), r"Xs has dtype float128"),
        (da.from_array(X + 1j), r"Xs has dtype complex128"),
        (pd.DataFrame({"u": X[:, 0], "day": DATES}), r"Xs\['day'\] has dtype datetime64"),
        (pd.DataFrame({"sector": pd.Categorical(["a"] * N)}), r"Xs\['sector'\] has dtype category"),
        (np.ma.masked_array(X.astype(str)), r"Xs has dtype <U32 \(string\)"),
        (sp.csr_array(X), "Xs is a scipy sparse matrix"),
        ("returns.csv", "Xs is a str but must be"),
        (dd.from_pandas(pd.DataFrame({"s": ["a"] * N}), npartitions=2), r"Xs\['s'\] has dtype string \(string\)"),
        (da.from_array(X).map_blocks(sp.csr_matrix, meta=sp.csr_matrix((0, 0))), "Xs is a Dask array of csr_matrix"),
    ],
)
def test_arrays_of_other_kinds(values, match):
    check_refused(match, TypeError, Xs=values)


def test_dtypes_of_every_array_are_checked():
    check_refused(r"Y has dtype <U32", TypeError, Y=Y.astype(str))
    check_refused(r"Xs\[2\] has dtype complex128", TypeError, Xs=[X, X, X * 1j])
    check_refused(r"weights has dtype <U3", TypeError, weights=np.full(N, "one"))
    check_refused(r"Xs has dtype complex128", TypeError, Xs=np.ones((N, 3, 2)) * 1j)
    check_refused("Y has dtype category", TypeError, Y=pd.Series(["a"] * N, dtype="category"))


def test_unknown_dask_chunks():
    unknown = da.from_array(X, chunks=(5, 2))[da.from_array(X[:, 0]) > 0]
    check_refused(r"Xs is a Dask array with unknown chunk sizes.*compute_chunk_sizes", Xs=unknown)


# ---- weights and groups


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.where(np.arange(N) == 3, -1.5, 1.0), r"weights must be zero or positive; found -1.5 at row 3, 1 such"),
        (np.where(np.arange(N) > 17, np.nan, 1.0), "weights must be finite; found nan at row 18, 2 such"),
        (np.zeros(N), "weights are all zero"),
        (np.ones((N, 2)), r"weights has shape \(20, 2\) but there are N = 20 rows and K = 3 equations"),
    ],
)
def test_weights_that_are_none(weights, match):
    check_refused(match, weights=weights)


def test_groups_are_one_column():
    check_refused(r"groups must be 1-D .* shape \(20, 2\)", groups=X)


# ---- labels


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"equations": ["a", "b", "a"]},
            "equation labels must be unique; 'a' is there 2 times, first at positions 0 and 2",
        ),
        ({"equations": ["a", "b"]}, "equations has 2 labels but Y has 3 columns"),
        ({"regressors": ["smb", "smb"]}, "regressor names must be unique within equation 'y0'; 'smb'"),
        ({"regressors": ["smb"]}, "regressors has 1 names but Xs has 2 columns"),
        ({"Xs": [X] * 3, "regressors": [["u", "v"]] * 2}, "regressors has 2 lists of names for 3 equations"),
        ({"Xs": [X, X[:, :1], X], "regressors": ["u", "v"]}, r"regressors has 2 names but Xs\[1\] has 1 columns"),
        ({"Y": pd.DataFrame(Y, columns=["u", "v", "u"])}, "equation labels must be unique; 'u'"),
        (
            {"Xs": [X, X + 1, X + 2], "regressors": [["u", "u[y1]"], ["u", "v"], ["u", "w"]]},
            r"distinct regressor columns .*'u\[y1\]'",
        ),
        (
            {"incidence": [[1, 1, 0], [0, 0, 1]], "regressors": ["smb", "smb"]},
            "labels of the distinct regressor columns must be unique; 'smb'",
        ),
        (
            {"Y": pd.DataFrame(Y, index=[*range(5, 24), 7])},
            "row labels along 'obs' must be unique; 7 .*positions 2 and 19",
        ),
        ({"Y": pd.DataFrame(Y, index=[np.nan, *range(18), np.nan])}, "must not be missing; found nan at row 0, 2 such"),
        ({"Y": pd.DataFrame(Y, index=PANEL)}, r"unique; \('US', 1\) .*positions 1 and 19"),
    ],
)
def test_labels_that_do_not_fit(changed, match):
    check_refused(match, **changed)


def test_labels_of_other_kinds():
    check_refused(r"equations must be hashable .* position 1 is a list", TypeError, equations=["a", ["b"], "c"])
    check_refused(r"incidence is a DataFrame", TypeError, incidence=pd.DataFrame(np.ones((2, 3))))


def test_row_labels_that_differ():
    frame = pd.DataFrame(Y, index=DATES)
    short, late = pd.DataFrame(X, index=DATES)[:4], pd.DataFrame(X, index=DATES.shift(1))
    check_refused("Xs has 4 labels along 'obs' but Y has 20; first difference at position 4", Y=frame, Xs=short)
    check_refused(
        r"Xs and Y have different labels along 'obs' \(.*1949-02-28.*; first difference at position 0", Y=frame, Xs=late
    )
    swapped = DATES[[0, 2, 1, *range(3, N)]]
    check_refused(r"Xs\[2\] and Xs\[1\] .* position 1\. Use", Xs=[X, frame[[0]], pd.DataFrame(X, index=swapped)])
    check_refused("weights and Y have different labels", Y=frame, weights=pd.Series(1.0, index=DATES.shift(1)))
    check_refused("Xs has 4 row labels but Y has 20 rows", Xs=short)


# ---- xarray


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (["const", "sbm"], r"x names 'sbm' but ds has .*; did you mean 'smb'\?"),
        (["const", "zzz"], r"x names 'zzz' but ds has 'ret', 'const'"),
        ([], "x names no variable"),
        (["smb", "const", "smb"], "regressor names must be unique within equation 'NoDur'; 'smb' is there 2 times"),
        (["risk"], r"x\['risk'\] is a scalar but must vary along 'time'"),
        (["beta"], r"x\['beta'\] has dims \('firm',\) but must vary along 'time'"),
        (["cube"], r"x\['cube'\] has dims \('time', 'a', 'b'\); besides"),
        ({"NoDur": ["const"], "Durbl": ["const"]}, "x must list regressors for every equation; it lacks 'Telcm'"),
        ({"Telcom": ["const"]}, r"x names equation 'Telcom', which y does not have; did you mean 'Telcm'\?"),
        ({"NoDur": ["const"], "Durbl": [], "Telcm": ["const"]}, "equation 'Durbl' has no regressors"),
    ],
)
def test_x_that_does_not_fit(ds, x, match):
    with pytest.raises(ValueError, match=match):
        from_xarray(ds, x)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"obs": "obs"}, r"y\['ret'\] has dims \('time', 'firm'\) but must have 'obs' and 'firm'. Pass obs="),
        ({"equation": "equation"}, r"y\['ret'\] has dims .* Select along 'firm', or pass obs"),
        ({"equation": "time"}, "obs and equation are both 'time'"),
        ({"y": "rets"}, r"y names 'rets' but ds has .*did you mean 'ret'"),
        ({"weights": "cube"}, r"weights\['cube'\] has dims \('time', 'a', 'b'\) but must have 'time', 'firm' or both"),
        ({"groups": "ret"}, r"groups\['ret'\] has dims \('time', 'firm'\) but must have 'time' only"),
        ({"groups": "decade"}, "groups names 'decade' but ds has"),
    ],
)
def test_other_names_that_do_not_fit(ds, options, match):
    with pytest.raises(ValueError, match=match):
        from_xarray(ds, ["const"], **options)


@pytest.mark.parametrize(
    ("source", "x", "match"),
    [
        (pd.DataFrame(Y), ["const"], "ds is a DataFrame but must be an xarray.Dataset"),
        (None, 3, "x is a int but must be a list"),
        (None, [["const"]], "x holds a list but must name variables"),
        (None, ["name"], r"x\['name'\] has dtype <U1 \(string\)"),
    ],
)
def test_objects_of_other_kinds(ds, source, x, match):
    with pytest.raises(TypeError, match=match):
        from_xarray(ds if source is None else source, x)


def test_data_arrays_that_do_not_fit(ds):
    def refused(match: str, *x: xr.DataArray, y: Any = "ret") -> None:
        with pytest.raises(ValueError, match=match):
            from_xarray(ds, list(x), y=y)

    match = (
        r"x\['smb'\] has 19 labels along 'time' but y\['ret'\] has 20; first difference at position 4\. Use xr\.align"
    )
    refused(match, ds["smb"].drop_isel(time=4))
    refused("x has a DataArray without a name", ds["smb"].rename(None))
    refused(r"x\['smb'\] has 9 rows along 'time' but y\['ret'\] has 20", ds["smb"].drop_vars("time")[:9])
    refused(r"x\['lag'\] must have the labels of y along 'firm' but lacks 'Telcm'", ds["lag"][:, :2])
    extra = xr.concat([ds["lag"], ds["lag"][:, :1].assign_coords(firm=["Hlth"])], "firm")
    refused(r"x\['lag'\] .* but has 'Hlth', more than y", extra)
    refused(r"x\['lag'\] has 2 entries along 'firm' but y has 3 equations", ds["lag"].drop_vars("firm")[:, :2])
    repeated = ds["ret"].assign_coords(firm=["u", "v", "u"])
    refused("equation labels must be unique; 'u'", ds["smb"], y=repeated)
    with pytest.raises(ValueError, match="row labels along 'time' must be unique; 3 is there"):
        from_xarray(ds.assign_coords(time=[3, *range(N - 1)]), ["const"])
    with pytest.raises(ValueError, match="x names 'const' but ds is empty"):
        from_xarray(None, ["const"], y=ds["ret"])


# ---- System itself


def test_parts_and_labels_must_match():
    design = Design(("a", "b"), ("u",), (np.array([0]),) * 2, (("u",),) * 2)
    part = Part("Y", Y, None)
    with pytest.raises(ValueError, match="Y has 3 columns but 2 labels"):
        System(Rows((Part("X", X[:, :1], None),), (part,), None, design, N))
    with pytest.raises(ValueError, match="X has 2 columns but 1 labels"):
        System(Rows((Part("X", X, None),), (part,), None, design, N))
    with pytest.raises(ValueError, match="obs_labels has 19 rows"):
        System(System.from_arrays(Y, X).rows, obs_labels=DATES[1:])
    with pytest.raises(ValueError, match="array must be 'X', 'Y' or 'weights'; found 'Z'"):
        System.from_arrays(Y, X).column_name("Z", 0)


# ---- stores


def store_of(**members: Any) -> zarr.Group:
    group = zarr.open_group(MemoryStore(), mode="w")
    for name, values in members.items():
        group.create_array(name, data=values)
    return group


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"y": Y, "X": X}, r"must have an array 'Y' but has 'X', 'y'"),
        ({"Y": Y}, r"must have an array 'X' but has 'Y'"),
        ({}, "must have an array 'Y' but has nothing"),
        ({"Y": Y, "X": X[1:]}, "X has 19 rows but Y has 20"),
        ({"Y": Y, "X": np.ones((N, 2, 2))}, "X has 3 dimensions"),
        ({"Y": Y, "X": X, "equation": np.arange(2)}, "equation has 2 labels for 3 columns"),
        ({"Y": Y, "X": X, "weights": X}, r"weights has shape \(20, 2\) but there are N = 20 rows and K = 3"),
        ({"Y": Y, "X": X, "weights": np.ones(4)}, "weights has 4 rows but Y has 20"),
        (
            {"Y": Y, "X": X, "incidence_start": np.arange(3), "incidence_columns": np.arange(2)},
            "incidence_start must rise",
        ),
        (
            {"Y": Y, "X": X, "incidence_start": np.arange(4), "incidence_columns": np.array([0, 1, 2])},
            r"incidence_columns must lie in 0..1; found 0..2",
        ),
        ({"Y": Y, "X/u": X}, "Y has no equation labels, so arrays 'u' in X cannot be told apart"),
        ({"Y": Y, "equation": np.arange(3), "X/0": X, "X/1": X}, "X has no array for equation 2; it has '0', '1'"),
        (
            {"Y": Y[:, :1], "equation": np.arange(1), "X/0": X, "X/1": X},
            "X has arrays '1' for equations that Y lacks",
        ),
    ],
)
def test_stores_that_lack_something(members, match):
    with pytest.raises(ValueError, match=match):
        System.from_zarr(store_of(**members))


@pytest.mark.parametrize(
    ("name", "attributes", "match"),
    [
        ("", {"lrgls_format": 2}, "has lrgls_format 2 but this lrgls_dask reads format 1. Upgrade"),
        ("", {"lrgls_incomplete": True}, "was not written to its end"),
        ("X", {"scale_factor": 0.1}, r"X is stored in coded form \(attributes 'scale_factor'\)"),
        ("Y", {"_FillValue": -999.0}, r"Y is stored in coded form \(attributes '_FillValue'\)"),
        ("Y", {"units": "days since 1970-01-01"}, r"Y is stored in coded form \(attributes 'units'\)"),
    ],
)
def test_stores_that_mean_something_else(name, attributes, match):
    group = store_of(Y=Y, X=X)
    (group[name] if name else group).attrs.update(attributes)
    with pytest.raises(ValueError, match=match):
        System.from_zarr(group)


def test_stored_dtypes_dims_and_names():
    with pytest.raises(TypeError, match="X has dtype complex128"):
        System.from_zarr(store_of(Y=Y, X=X * 1j))
    with pytest.raises(TypeError, match="weights has dtype complex128"):
        System.from_zarr(store_of(Y=Y, X=X, weights=np.ones(N) * 1j))
    group = zarr.open_group(MemoryStore(), mode="w")
    group.create_array("Y", data=Y, dimension_names=("time", "firm"))
    group.create_array("X", data=X, dimension_names=("firm", "time"))
    with pytest.raises(ValueError, match=r"X has dims \('firm', 'time'\) but Y has \('time', 'firm'\)"):
        System.from_zarr(group)
    separate = store_of(**{"Y": Y[:, :1], "X/0": X})
    separate["X/0"].attrs["regressors"] = ["const"]
    with pytest.raises(ValueError, match="X/0 has 2 columns but 1 regressors"):
        System.from_zarr(separate)


def test_paths_that_are_no_store(tmp_path):
    def refused(match: str, path: Any, kind: type[Exception] = ValueError, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            System.from_zarr(path, **options)

    refused("no zarr store at .*nowhere.zarr. Check the path", tmp_path / "nowhere.zarr", FileNotFoundError)
    refused("no zarr store at memory://nowhere", "memory://nowhere", FileNotFoundError)
    refused("exists but is no zarr group", tmp_path)
    (tmp_path / "file.csv").write_text("a,b\n")
    refused("file.csv exists but is no zarr group", tmp_path / "file.csv")
    zarr.create_array(tmp_path / "a.zarr", data=X)
    refused("a.zarr is a zarr array but must be a zarr group", tmp_path / "a.zarr")
    refused("storage_options are for URLs", tmp_path / "a.zarr", storage_options={"anon": True})
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text(json.dumps({"zarr_format": 3})[:-3])
    refused("the zarr metadata at .*bad.zarr cannot be read", tmp_path / "bad.zarr")


def test_paths_that_cannot_be_written(tmp_path):
    system = System.from_arrays(Y, X)

    def refused(match: str, path: Any, kind: type[Exception], **options: Any) -> None:
        with pytest.raises(kind, match=match):
            system.to_zarr(path, **options)

    (tmp_path / "thesis").mkdir()
    refused(
        "thesis exists and is no zarr store, so it is not replaced",
        tmp_path / "thesis",
        FileExistsError,
        overwrite=True,
    )
    assert (tmp_path / "thesis").is_dir()
    system.to_zarr(tmp_path / "s.zarr")
    refused(r"s.zarr exists. .*overwrite=True", tmp_path / "s.zarr", FileExistsError)
    refused("storage_options are for URLs", tmp_path / "t.zarr", ValueError, storage_options={"anon": True})
    refused("nonsense://x cannot be opened: Protocol not known", "nonsense://x", ValueError)
    refused("path is a int but must be a path", 3, TypeError)
    for wrong in (0, 2.5, True):
        refused(
            f"row_chunk must be a positive whole number of rows; found {wrong}",
            tmp_path / "t",
            ValueError,
            row_chunk=wrong,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "thesis"]


def test_labels_that_cannot_be_stored(tmp_path):
    frame = pd.DataFrame(Y, index=pd.interval_range(0, N))
    with pytest.raises(
        TypeError, match=r"row labels along 'obs' must be strings.* found Interval\(0, 1, closed='right'\)"
    ):
        System.from_arrays(frame, X).to_zarr(tmp_path / "s.zarr")
    clash = xr.DataArray(Y, dims=("X", "firm"))
    with pytest.raises(ValueError, match="the dim 'X' has a name that the format keeps for itself"):
        System.from_arrays(clash, X).to_zarr(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_cannot_be_replaced_keeps_the_new_store(monkeypatch):
    system = System.from_arrays(Y, X)
    system.to_zarr("memory://kept/s.zarr")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.mv", refuse)
    with pytest.raises(OSError, match=r"could not be replaced \(read-only\). The new store is complete at") as caught:
        system.to_zarr("memory://kept/s.zarr", overwrite=True)
    assert System.from_zarr(str(caught.value).split()[-1].rstrip(".")).n_obs == N
