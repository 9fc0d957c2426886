"""Systems of sums of products that somebody else made."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import CompressedSystem, LowRankGLS, System

NAMES = ["const", "a", "b", "c"]
EQUATIONS = ["u", "v", "w"]


def rows(seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 3)) * [1.0, 30.0, 0.01] + [3.0, 0.0, -1.0]])
    Y = X @ rng.normal(size=(4, 3)) + rng.normal(size=(n, 1)) + rng.normal(size=(n, 3)) + 7.0
    return X, Y


def sums(X: np.ndarray, Y: np.ndarray, *, centred: bool = False) -> dict[str, Any]:
    means = np.concatenate([X.mean(axis=0), Y.mean(axis=0)])
    x, y = (X - X.mean(axis=0), Y - Y.mean(axis=0)) if centred else (X, Y)
    given: dict[str, Any] = {"xx": x.T @ x, "xy": x.T @ y, "yy": y.T @ y, "n_obs": len(X)}
    return given | ({"means": means} if centred else {})


def check_same(found: Any, expected: Any, rtol: float = 1e-7) -> None:
    np.testing.assert_allclose(found.params.values, expected.params.values, rtol=rtol)
    assert list(found.params["regressor"].values) == list(expected.params["regressor"].values)
    assert list(found.params["equation"].values) == list(expected.params["equation"].values)
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-9)
    np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=rtol)
    np.testing.assert_allclose(found.r2.values, expected.r2.values, rtol=rtol)
    np.testing.assert_allclose(found.sigma().values, expected.sigma().values, rtol=rtol)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("options", [{"rank": 1}, {"covariance": "full"}, {"rank": 1, "lam_B": 3.0}, {"rank": "bic"}])
def test_the_fit_is_that_of_the_rows(centred: bool, options: dict[str, Any]) -> None:
    X, Y = rows()
    made = CompressedSystem.from_moments(**sums(X, Y, centred=centred), regressors=NAMES, equations=EQUATIONS)
    expected = System.from_arrays(Y, X, regressors=NAMES, equations=EQUATIONS)
    check_same(LowRankGLS(**options).fit(made).result_, LowRankGLS(**options).fit(expected).result_)


def test_incidence_chooses_the_columns_of_each_equation() -> None:
    X, Y = rows(1)
    used = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]])
    made = CompressedSystem.from_moments(**sums(X, Y), incidence=used, regressors=NAMES, equations=EQUATIONS)
    expected = System.from_arrays(Y, X, incidence=used, regressors=NAMES, equations=EQUATIONS)
    check_same(LowRankGLS(rank=1).fit(made).result_, LowRankGLS(rank=1).fit(expected).result_)


@pytest.mark.parametrize("kind", ["pandas", "xarray"])
def test_labels_come_with_frames(kind: str) -> None:
    X, Y = rows(2)
    given = sums(X, Y)
    sides = {"xx": (NAMES, NAMES), "xy": (NAMES, EQUATIONS), "yy": (EQUATIONS, EQUATIONS)}
    for name, (index, columns) in sides.items():
        frame = pd.DataFrame(given[name], index, columns)
        given[name] = frame if kind == "pandas" else xr.DataArray(frame)
    made = CompressedSystem.from_moments(**given)
    assert (list(made.regressors), list(made.equations)) == (NAMES, EQUATIONS)
    if kind == "pandas":
        given["xy"] = given["xy"].iloc[::-1]
        with pytest.raises(ValueError, match="the rows of xy have 'c' at position 0 where the rows of xx have 'const'"):
            CompressedSystem.from_moments(**given)


def test_rows_are_appended_and_stored(tmp_path: Any) -> None:
    X, Y = rows(3)
    made = CompressedSystem.from_moments(**sums(X[:120], Y[:120]), regressors=NAMES, equations=EQUATIONS)
    more = System.from_arrays(Y[120:], X[120:], regressors=NAMES, equations=EQUATIONS)
    made.append(more).to_zarr(tmp_path / "sums.zarr")
    found = LowRankGLS(rank=1).fit(CompressedSystem.from_zarr(tmp_path / "sums.zarr")).result_
    expected = System.from_arrays(Y, X, regressors=NAMES, equations=EQUATIONS)
    check_same(found, LowRankGLS(rank=1).fit(expected).result_)


def test_sums_of_a_database() -> None:
    X, Y = rows(4)
    columns = [*NAMES, *EQUATIONS]
    with sqlite3.connect(":memory:") as database:
        pd.DataFrame(np.column_stack([X, Y]), columns=columns).to_sql("rows", database, index=False)
        asked = ", ".join(f"SUM({a} * {b})" for a in columns for b in columns)
        (answer,) = database.execute(f"SELECT {asked} FROM rows").fetchall()
    M = np.reshape(answer, (7, 7))
    made = CompressedSystem.from_moments(M[:4, :4], M[:4, 4:], M[4:, 4:], 200, regressors=NAMES, equations=EQUATIONS)
    expected = System.from_arrays(Y, X, regressors=NAMES, equations=EQUATIONS)
    check_same(LowRankGLS(rank=1).fit(made).result_, LowRankGLS(rank=1).fit(expected).result_)


def test_without_a_constant_means_count_as_zero() -> None:
    X, Y = rows(5)
    X, Y = X[:, 1:] - X[:, 1:].mean(axis=0), Y - Y.mean(axis=0)
    found = LowRankGLS(rank=1).fit(CompressedSystem.from_moments(**sums(X, Y))).result_
    expected = LowRankGLS(rank=1).fit(System.from_arrays(Y, X)).result_
    check_same(found, expected)


def test_one_equation_and_a_constant_of_another_name() -> None:
    X, Y = rows(6)
    given = sums(X, Y[:, :1])
    given["xy"] = given["xy"][:, 0]
    given["yy"] = float(given["yy"][0, 0])
    made = CompressedSystem.from_moments(**given, regressors=["one", "a", "b", "c"], constant="one")
    found = LowRankGLS(rank=0).fit(made).result_
    expected = LowRankGLS(rank=0).fit(System.from_arrays(Y[:, 0], X)).result_
    np.testing.assert_allclose(found.r2.values, expected.r2.values, rtol=1e-9)
    np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy": np.zeros((3, 3))}, r"xy has shape \(3, 3\) but must be \(4, 3\)"),
        ({"n_obs": 0}, "n_obs must be the number of rows"),
        ({"n_obs": 17.5}, "n_obs must be the number of rows"),
        ({"yy": -np.eye(3)}, "sum of squares of 'u' is -1, but must not be negative"),
        ({"yy": np.eye(3)}, "is larger than their sums of squares"),
        ({"xx": np.full((4, 4), np.nan)}, "xx holds NaN or infinite sums"),
        ({"xx": [["a"]]}, "xx must hold sums of products, real numbers"),
        ({"means": np.zeros(3)}, r"means has shape \(3,\) but must be \(7,\)"),
        ({"means": {"u": 0.0}}, "means lacks 'const', 'a', 'b', 'c', 'v'"),
        ({"constant": "d"}, "constant 'd' is no regressor"),
        ({"constant": "a"}, "it is not one in every row"),
        ({"regressors": ["a"]}, "regressors has 1 labels for 4"),
    ],
)
def test_sums_that_no_rows_have_are_refused(change: dict[str, Any], message: str) -> None:
    given = sums(*rows()) | {"regressors": NAMES, "equations": EQUATIONS} | change
    with pytest.raises((ValueError, TypeError), match=message):
        CompressedSystem.from_moments(**given)


def test_sums_of_different_rows_are_refused() -> None:
    """Pairwise sums, each over the rows that show both, need not be those of any rows."""
    given = sums(*rows())
    given["yy"] = np.diag(given["yy"].diagonal()) + 0.99 * np.sqrt(np.outer(*[given["yy"].diagonal()] * 2)) * (
        np.array([[0, 1, -1], [1, 0, 1], [-1, 1, 0]])
    )
    with pytest.raises(ValueError, match="are not positive semidefinite"):
        CompressedSystem.from_moments(**given, regressors=NAMES, equations=EQUATIONS)
    lopsided = sums(*rows())
    lopsided["yy"][0, 1] *= 1.5
    with pytest.raises(ValueError, match="one way and"):
        CompressedSystem.from_moments(**lopsided, regressors=NAMES, equations=EQUATIONS)


@pytest.mark.parametrize("level", [1e4, 3e6])
def test_large_means_need_sums_about_them(level: float) -> None:
    X, Y = rows(7)
    X, Y = X + level * np.array([0.0, 1.0, 0.0, 0.0]), Y + level
    labels: dict[str, Any] = {"regressors": NAMES, "equations": EQUATIONS}
    expected = LowRankGLS(rank=1).fit(System.from_arrays(Y, X, **labels)).result_
    made = CompressedSystem.from_moments(**sums(X, Y, centred=True), **labels)
    check_same(LowRankGLS(rank=1).fit(made).result_, expected)
    if level > 1e5:
        with pytest.raises(ValueError, match=r"'a', .* keeps too few digits of its variation"):
            CompressedSystem.from_moments(**sums(X, Y), **labels)
