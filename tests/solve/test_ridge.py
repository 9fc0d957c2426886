"""The ridge on coefficients: what it measures them by, and that it leaves constants alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from sklearn.linear_model import Ridge

from lrgls_dask import FitWarning, GroupedLowRank, Known, LowRankGLS, SparseLowRank, System, TimeVarying
from lrgls_dask.data.seal import SEAL
from support.fits import assert_params_close, by_gram, fit
from support.systems import Data, dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.usefixtures("small_blocks")

ENGINES = ["compress", "stream"]
N = 90
SIGMA = np.array([[2.0, 0.8, -0.3], [0.8, 1.0, 0.2], [-0.3, 0.2, 0.5]])
ROADS: dict[str, dict[str, Any]] = {
    "compress": {},
    "stream": {"engine": "stream"},
    "full": {"covariance": "full", "rank": "auto"},
    "diagonal": {"covariance": "diagonal", "rank": "auto"},
    "em": {"algorithm": "em"},
    "em, streamed": {"algorithm": "em", "engine": "stream"},
    "fgls": {"algorithm": "fgls"},
    "pca": {"sigma_step": "pca", "max_sweeps": 30},
    "missing": {"missing": "em"},
    "missing, streamed": {"missing": "em", "engine": "stream"},
    "lam_F": {"lam_F": 0.05},
    "restricted": {"restrictions": "y0:x1 = y1:x1"},
    "sparse": {"covariance": SparseLowRank(1, 0.05), "rank": "auto"},
    "grouped": {"covariance": GroupedLowRank(1, {f"y{j}": "ab"[j // 3] for j in range(6)}), "rank": "auto"},
    "varying": {"covariance": TimeVarying(1, np.repeat([0, 1, 2], 30), 2.0), "rank": "auto"},
}


def fitted(data: Data, *, rank: Any = 1, wrap: Any = np.asarray, **options: Any) -> Any:
    return LowRankGLS(rank, **({"rel_tol": 1e-15, "max_sweeps": 500} | options)).fit(data.system(wrap)).result_


def by_name(data: Data, name: str, value: float) -> np.ndarray:
    """(P,) the penalties that a mapping with this one name asks for, columns called x0, x1, ..."""
    terms = [f"x{i if data.kind == 'own' else c}" for own in data.columns for i, c in enumerate(own)]
    return np.where(np.array(terms) == name, value, 0.0)


def three(kind: str, **how: Any) -> Data:
    return simulate(kind, n=N, K=3, k=1, **how)


def five(kind: str, **how: Any) -> Data:
    return simulate(kind, n=N, K=5, k=1, seed=1, **how)


# ---------------------------------------------------------------------------------- against other computations


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_gls_by_explicit_kronecker_products(kind: str, weighted: bool, engine: str) -> None:
    data = three(kind, weighted=weighted)
    for lam, penalties in ((7.0, 7.0), ({"x1": 30.0}, by_name(data, "x1", 30.0))):
        dense = data.dense(lam_B=penalties)
        found = fitted(data, rank="auto", covariance=Known(SIGMA), engine=engine, lam_B=lam, wrap=dask_rows(20))
        np.testing.assert_allclose(found.params.values, dense.gls(SIGMA), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.cov().values, dense.cov(SIGMA), rtol=1e-7, atol=1e-10)
        robust = found.cov("robust", system=data.system()).values
        A = np.linalg.inv(dense.normal_matrix(SIGMA) + np.diag(penalties * dense.unit**2))
        rows = np.linalg.inv(SIGMA) @ (dense.residuals(dense.gls(SIGMA)) * dense.w[:, None]).T
        gradients = np.hstack([X * g[:, None] for X, g in zip(data.Xs, rows, strict=True)])
        np.testing.assert_allclose(robust, A @ gradients.T @ gradients @ A, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_equation_is_the_ridge_of_scikit_learn(weighted: bool, constant: bool, engine: str) -> None:
    rng = np.random.default_rng(5)
    Z = rng.normal(size=(N, 2)) * [1.0, 40.0] + [50.0, -3.0]
    y = 280.0 + Z @ [2.0, 0.1] + rng.normal(size=N)
    w = rng.uniform(0.2, 3.0, size=N) if weighted else np.ones(N)
    X = np.column_stack([Z[:, :1], np.full(N, 4.0), Z[:, 1:]]) if constant else Z
    found = fit(System.from_arrays(y[:, None], X, weights=w), 0, lam_B=20.0, engine=engine)
    ols = np.linalg.lstsq(np.sqrt(w)[:, None] * X, np.sqrt(w) * y, rcond=None)[0]
    s2 = w @ (y - X @ ols) ** 2 / N
    level = np.average(Z, axis=0, weights=w) if constant else np.zeros(2)
    unit = np.sqrt(w @ (Z - level) ** 2 / N)
    peer = Ridge(alpha=20.0 * found.idio_var.item() / s2, fit_intercept=constant, tol=1e-14)
    peer.fit((Z - level) / unit, y, sample_weight=w)
    expected = peer.coef_ / unit
    b = found.params.values
    np.testing.assert_allclose(b[[0, 2]] if constant else b, expected, rtol=1e-9)
    if constant:
        np.testing.assert_allclose(4.0 * b[1], peer.intercept_ - level @ expected, rtol=1e-9)
    np.testing.assert_allclose(found.idio_var.item(), w @ (y - X @ b) ** 2 / N, rtol=1e-8)


def test_a_high_level_is_not_pulled_to_zero() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=500)
    y = 280.0 + 3.0 * x + rng.normal(size=500)
    b = fit(System.from_arrays(y[:, None], np.column_stack([np.ones(500), x])), 0, lam_B=1.0).params.values
    assert abs(b[0] - 280.0) < 0.2
    assert abs(b[1] - 3.0) < 0.2


# ---------------------------------------------------------------------------------- levels change nothing else


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.filterwarnings("ignore:LowRankGLS. (stalled|ended|the groups)")
def test_levels_change_the_intercepts_and_nothing_else(road: str) -> None:
    data = simulate("mixed", n=N, k=1)
    if road.startswith("missing"):
        Y = data.Y.copy()
        Y[::7, 0], Y[3::9, 2] = np.nan, np.nan
        data = Data(data.kind, Y, data.X, data.columns)
    options = ROADS[road] | {"lam_B": 9.0}
    shift_y, shift_x = 1e5 * np.arange(-2.0, 4.0), 1e5 * np.arange(8.0)
    shift_x[0] = 0.0
    moved = Data(data.kind, data.Y + shift_y, data.X + shift_x, data.columns)
    found, expected = fitted(moved, **options), fitted(data, **options)
    slope = found.params["regressor"].values != "x0"
    size = np.abs(expected.params.values).max()
    np.testing.assert_allclose(found.params.values[slope], expected.params.values[slope], atol=1e-6 * size)
    levels = [
        y - shift_x[c[1:]] @ found.params.values[found.params["equation"].values == f"y{j}"][1:]
        for j, (y, c) in enumerate(zip(shift_y, data.columns, strict=True))
    ]
    if road != "restricted":
        intercepts = expected.params.values[~slope] + levels
        np.testing.assert_allclose(found.params.values[~slope], intercepts, atol=1e-5 * size)
    assert abs(found.loglik - expected.loglik) < 1e-5 * abs(expected.loglik)
    if road not in ("missing", "missing, streamed"):
        np.testing.assert_allclose(found.std_errors.values[slope], expected.std_errors.values[slope], rtol=1e-5)
    assert np.abs(expected.params.values[slope]).max() > 10 * np.abs(expected.params.values[slope]).min()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_huge_level_costs_no_digits_of_slopes_and_their_errors(engine: str) -> None:
    data = five("shared")
    level = np.array([0.0, 2.0**40, 0.0, -(2.0**38)])
    X = data.X + level
    X_there = X - level  # as stored
    found = fitted(Data("shared", data.Y + 2.0**36, X, data.columns), lam_B=5.0, engine=engine)
    expected = fitted(Data("shared", (data.Y + 2.0**36) - 2.0**36, X_there, data.columns), lam_B=5.0, engine=engine)
    slope = found.params["regressor"].values != "x0"
    for name in ("params", "std_errors"):
        a, b = (getattr(each, name).values[slope] for each in (found, expected))
        np.testing.assert_allclose(a, b, rtol=1e-7, err_msg=name)
    if engine == "compress":
        robust = [each.cov("robust").values[np.ix_(slope, slope)] for each in (found, expected)]
        np.testing.assert_allclose(robust[0], robust[1], rtol=1e-5, atol=1e-8)


# ---------------------------------------------------------------------------------- what a constant is


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(25), zarr_rows(25)], ids=["numpy", "dask", "zarr"])
def test_a_column_that_only_unused_rows_vary_is_a_constant(wrap: Any, engine: str) -> None:
    data = five("shared")
    X, w, Y = data.X.copy(), np.ones(N), data.Y.copy()
    X[[3, 40], 0], w[[3, 40]] = 5.0, 0.0
    Y[[3, 40], 1] = np.nan
    used = np.setdiff1d(np.arange(N), [3, 40])
    expected = fitted(data.take(used), lam_B=50.0)
    unweighted = fitted(Data("shared", data.Y, X, data.columns, w), lam_B=50.0, wrap=wrap, engine=engine)
    dropped = fitted(Data("shared", Y, X, data.columns), lam_B=50.0, wrap=wrap, engine=engine, missing="drop")
    for found in (unweighted, dropped):
        assert_params_close(found, expected, 1e-7)
        np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_of_the_rows_that_show_an_equation(engine: str) -> None:
    data = simulate("own", n=N, K=6, k=1)
    X, Y = data.X.copy(), data.Y.copy()
    hidden = [5, 6, 50]
    X[hidden, data.columns[2][0]] = -4.0
    Y[hidden, 2] = np.nan
    varied = Data("own", Y, X, data.columns)
    plain = Data("own", Y, data.X, data.columns)
    found, expected = (fitted(d, lam_B=50.0, missing="em", engine=engine) for d in (varied, plain))
    assert_params_close(found, expected, 1e-6)


def test_rows_that_are_appended_make_one_fit_with_the_others() -> None:
    data = five("mixed")
    appended = data.take(slice(0, 30)).system().append(data.take(slice(30, None)).system())
    assert_params_close(fit(appended, 1, lam_B=8.0), fitted(data, lam_B=8.0), 1e-8)


# ---------------------------------------------------------------------------------- by name


def test_a_value_for_every_name_is_the_number() -> None:
    data = five("mixed", weighted=True)
    number = fitted(data, lam_B=6.0)
    names = dict.fromkeys(data.system().regressors, 6.0)
    for given in (names, pd.Series(names)):
        found = fitted(data, lam_B=given)
        np.testing.assert_array_equal(found.params.values, number.params.values)
        np.testing.assert_array_equal(found.std_errors.values, number.std_errors.values)
    assert found.lam_B == names
    np.testing.assert_array_equal(fitted(data, lam_B={}).params.values, fitted(data).params.values)


@pytest.mark.parametrize("road", ["compress", "stream", "missing", "varying", "em"])
def test_names_left_out_are_not_penalised(road: str) -> None:
    data = simulate("own", n=N, k=1, K=6)
    options = ROADS[road]
    strong = fitted(data, lam_B={"x1": 1e9}, **options)
    is_named = strong.params["regressor"].values == "x1"
    assert np.abs(strong.params.values[is_named]).max() < 1e-5
    without = tuple(np.delete(c, 1) for c in data.columns)
    expected = fitted(Data("own", data.Y, data.X, without), **options)
    np.testing.assert_allclose(strong.params.values[~is_named], expected.params.values, rtol=1e-4, atol=1e-5)


def test_one_column_of_many_that_are_called_alike() -> None:
    ds = xr.Dataset(
        {
            "y": (("t", "firm"), three("own").Y),
            "x": (("t", "firm"), three("own").X[:, [1, 3, 6]]),
            "one": ("t", np.ones(N)),
        },
        {"firm": ["a", "b", "c"]},
    )
    system = System.from_xarray(ds, y="y", x=["one", "x"], obs="t", equation="firm")
    assert "x[b]" in system.regressors
    found = fit(system, 0, lam_B={"x[b]": 1e9}).params.values[[1, 3, 5]]
    assert abs(found[1]) < 1e-6
    assert np.abs(found[[0, 2]]).min() > 1e-3
    assert np.abs(fit(system, 0, lam_B={"x": 1e9, "x[b]": 0.0}).params.values[[1, 5]]).max() < 1e-6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x1": 1.0, "x_3": 2.0}, r"lam_B: no equation has a regressor 'x_3'; did you mean 'x3'\?"),
        ({"x1": -1.0}, r"lam_B\['x1'\] must be at least 0 and finite; got -1.0"),
        ({"x1": np.nan}, r"lam_B\['x1'\] must be at least 0 and finite; got nan"),
    ],
)
def test_names_and_values_that_cannot_be_are_refused_before_a_read(given: dict[str, float], message: str) -> None:
    system = simulate("shared").system(zarr_rows(60))
    for use in ("plan", "fit"):
        with pytest.raises(ValueError, match=message):
            getattr(LowRankGLS(1, lam_B=given), use)(system)
    with pytest.raises(TypeError, match=r"lam_B\['x1'\] must be a number; got '1'"):
        LowRankGLS(1, lam_B={"x1": "1"})


# ---------------------------------------------------------------------------------- messages at their word

COLLINEAR = {
    "copy": lambda X: X[:, 1],
    "sum": lambda X: 2 * X[:, 1] - X[:, 2],
    "constant": lambda X: np.full(len(X), 7.0),
    "shifted": lambda X: 5 + 3 * X[:, 2],
    "scaled": lambda X: 1e9 * X[:, 1],
    "zero": lambda X: np.zeros(len(X)),
    "nearly": lambda X: X[:, 1] + 1e-13 * X[:, 2],
}


@pytest.mark.parametrize("road", ["compress", "gram", "stream", "missing", "missing, streamed", "full", "varying"])
@pytest.mark.parametrize("kind", COLLINEAR)
def test_a_ridge_settles_what_collinear_columns_leave_open(kind: str, road: str) -> None:
    data = simulate("shared", n=N, k=1)
    X = data.X.copy()
    X[:, 3] = COLLINEAR[kind](X)
    Y = data.Y.copy()
    if road.startswith("missing"):
        Y[::5, 1] = np.nan
    options = {"rank": 1, "rel_tol": 1e-13, "max_sweeps": 300} | ROADS.get(road, {})
    given = Data("shared", Y, X, data.columns).system()
    system = by_gram(given) if road == "gram" else given
    with pytest.raises(np.linalg.LinAlgError, match=r"Drop one, or set lam_B > 0\."):
        LowRankGLS(**options).fit(system)
    for lam in (1e-6, 4.0):
        found = LowRankGLS(**options, lam_B=lam).fit(system).result_
        b = found.params.values.reshape(6, 4) * np.maximum(X.std(axis=0), np.abs(X).max(axis=0) * (X.std(axis=0) == 0))
        assert np.abs(b).max() < 20.0
        kept = np.delete(X, 3, axis=1)
        if kind in ("constant", "zero"):  # nothing that the others do not say, and so left at zero
            np.testing.assert_allclose(b[:, 3], 0.0, atol=1e-6)
            alone = LowRankGLS(**options, lam_B=lam).fit(Data("shared", Y, kept, (np.arange(3),) * 6).system()).result_
            fitted_values = found.params.values.reshape(6, 4) @ X.T, alone.params.values.reshape(6, 3) @ kept.T
            np.testing.assert_allclose(*fitted_values, atol=1e-5)
        if kind in ("copy", "scaled", "nearly"):
            np.testing.assert_allclose(b[:, 1], b[:, 3], rtol=1e-4, atol=1e-6)
        assert np.isfinite(found.std_errors.values).all()


def test_a_mapping_settles_what_it_names() -> None:
    data = simulate("shared", n=N, k=1)
    X = data.X.copy()
    X[:, 3], X[:, 2] = X[:, 1], 7.0
    system = System.from_arrays(data.Y, X)
    with pytest.raises(np.linalg.LinAlgError, match=r"'x1' and 'x3' are collinear .*set lam_B > 0"):
        fit(system, 1, lam_B={"x0": 1.0})
    with pytest.raises(np.linalg.LinAlgError, match=r"'x0' and 'x2' are collinear .*set lam_B > 0"):
        fit(system, 1, lam_B={"x3": 1.0})
    for constant, other in (("x0", 2), ("x2", 0)):
        b = fit(system, 1, lam_B={"x3": 1.0, constant: 1.0}).params.values.reshape(6, 4)
        np.testing.assert_allclose(b[:, [2 - other, 3]], 0.0, atol=1e-7)
        assert np.abs(b[:, other]).min() > 1e-3


# ---------------------------------------------------------------------------------- fits that remember


@pytest.mark.parametrize("lam", [4.0, {"x1": 4.0, "x2": 0.5}], ids=["number", "names"])
def test_a_saved_fit_has_the_same_penalty(lam: Any, tmp_path: Any) -> None:
    data = five("mixed")
    found = fitted(data, lam_B=lam)
    found.to_zarr(tmp_path / "f.zarr")
    again = type(found).from_zarr(tmp_path / "f.zarr")
    assert again.lam_B == lam and again.options["lam_B"] == lam
    for kind in ("classical", "robust"):
        each = [f.cov(kind, system=data.system()).values for f in (again, found)]
        np.testing.assert_array_equal(*each)
    shown = "lam_B = 4," if lam == 4.0 else "lam_B = {'x1': 4, 'x2': 0.5},"
    assert shown in found.summary() and shown in again.summary()
    draws = [
        f.bootstrap(3, seed=1, **({"system": data.system()} if f is again else {})).params.values
        for f in (again, found)
    ]
    np.testing.assert_allclose(*draws, rtol=1e-9)
    for refuse in (lambda: found.cov("classical", debiased=True), lambda: found.cov("kackar-harville")):
        with pytest.raises(ValueError, match="lam_B"):
            refuse()


def test_a_fit_of_an_earlier_version_says_that_its_penalty_meant_another_thing(tmp_path: Any) -> None:
    for lam, warns in ((4.0, True), (0.0, False)):
        path = tmp_path / f"{lam}.zarr"
        made = fitted(five("mixed"), lam_B=lam)
        made.to_zarr(path)
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        for name in ("ridge", SEAL):
            del group.attrs[name]
        if warns:
            with pytest.warns(FitWarning, match="earlier version, whose lam_B shrank constants too"):
                type(made).from_zarr(path)
        else:
            assert type(made).from_zarr(path).lam_B == 0.0


@pytest.mark.parametrize("method", ["blocks", "parametric"])
def test_replicates_keep_to_the_penalty_by_name(method: Any) -> None:
    data = five("own")
    strong = fitted(data, lam_B={"x1": 1e9}).bootstrap(4, method=method, seed=2, system=data.system())
    named = strong.params["regressor"].values == "x1"
    assert np.abs(strong.params.values[:, named]).max() < 1e-5
    assert np.abs(strong.params.values[:, ~named]).min(axis=0).max() > 1e-3
