"""Segments that cannot carry a Sigma: named, refused, or carried by their neighbours."""

from __future__ import annotations

import re
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System, TimeVarying, TimeVaryingFit

N, T = 200, 8
YEARS = 2000 + np.arange(N) // (N // T)


def drawn(seed: int = 0, K: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Y (N, K) with slopes of 0.5 and errors that one factor joins, X (N, 2)."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    return 1.0 + 0.5 * X[:, 1:] + rng.normal(size=(N, 1)) + rng.normal(size=(N, K)), X


def made(Y: Any, X: Any, bandwidth: Any, *, segments: Any = YEARS, rank: int = 1, **system: Any) -> TimeVaryingFit:
    model = LowRankGLS(covariance=TimeVarying(rank, segments, bandwidth))
    return model.fit(System.from_arrays(Y, X, **system)).result_


def without_errors(kind: str, Y: np.ndarray, X: np.ndarray, rows: slice, j: int) -> np.ndarray:
    """Y with no errors in equation j and these rows."""
    out = Y.copy()
    n = len(range(*rows.indices(N)))
    out[rows, j] = {
        "zero": np.zeros(n),
        "constant": np.full(n, 280.1),
        "noise of rounding": 5.0 + 1e-9 * np.random.default_rng(1).normal(size=n),
        "noise of storage": (5.0 + 1e-5 * np.random.default_rng(1).normal(size=n)).astype(np.float32),
        "exact": X[rows] @ [3.0, -2.0],
    }[kind]
    return out


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["zero", "constant", "noise of rounding", "noise of storage", "exact"])
def test_an_equation_without_errors_in_a_segment_is_named(kind: str, rank: int) -> None:
    Y, X = drawn()
    dead = without_errors(kind, Y, X, slice(75, 100), 2)
    what = "is fitted exactly by its regressors" if kind == "exact" else "does not vary"
    with pytest.raises(ValueError, match=re.escape(f"segments: equation 'y2' {what} in segment 2003. ")):
        made(dead, X, 0.0, rank=rank)


@pytest.mark.parametrize("bandwidth", [0.0, 1.0, 1.2, 3.0])
def test_few_neighbours_do_not_stand_in(bandwidth: float) -> None:
    Y, X = drawn()
    with pytest.raises(ValueError, match="equation 'y1' does not vary in segment 2000"):
        made(without_errors("constant", Y, X, slice(0, 25), 1), X, bandwidth)


@pytest.mark.parametrize("bandwidth", [5.0, 8.0])
@pytest.mark.parametrize("kind", ["zero", "constant", "exact"])
def test_where_neighbours_stand_in_the_others_are_as_without_it(kind: str, bandwidth: float) -> None:
    for seed in range(2):
        Y, X = drawn(seed)
        with pytest.warns(FitWarning, match=r"equation 'y2' .* in segment 2003: its variance there is that of the"):
            found = made(without_errors(kind, Y, X, slice(75, 100), 2), X, bandwidth)
        others = made(np.delete(Y, 2, axis=1), X, bandwidth)
        moved = np.delete(found.coefficients.reshape(4, 2), 2, axis=0).ravel() - others.coefficients
        assert np.abs(moved / others.std_errors.values).max() < 0.5
        np.testing.assert_allclose(found.coefficients, dense_gls(found, X), rtol=1e-8, atol=1e-10)


def dense_gls(found: TimeVaryingFit, X: np.ndarray) -> np.ndarray:
    """The coefficients at the Sigma_t of a fit, by Kronecker products."""
    Y = np.asarray(found.system.rows.y[0].array)
    left, right = 0.0, 0.0
    for t, label in enumerate(found.segments):
        rows = slice(found.edges[t], found.edges[t + 1])
        precision = np.linalg.inv(found.sigma(label).values)
        left = left + np.kron(precision, X[rows].T @ X[rows])
        right = right + (precision @ Y[rows].T @ X[rows]).ravel()
    return np.linalg.solve(left, right)


def test_several_at_once_and_labels_of_dates() -> None:
    Y, X = drawn()
    dates = pd.date_range("2000-01-31", periods=T, freq="YS")[np.arange(N) // (N // T)]
    dead = without_errors("zero", Y, X, slice(25, 50), 0)
    dead = without_errors("exact", dead, X, slice(150, 200), 3)
    frame = pd.DataFrame(dead, columns=list("abcd"), index=pd.RangeIndex(N))
    said = (
        "equation 'a' does not vary in segment 2002-01-01 00:00:00, equation 'd' is fitted exactly by its "
        "regressors in segment 2007-01-01 00:00:00, equation 'd' is fitted exactly"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        made(frame, X, 0.0, segments=dates)


def test_dask_rows_and_own_designs() -> None:
    Y, X = drawn()
    dead = da.from_array(without_errors("exact", Y, X, slice(75, 100), 2), chunks=(60, 4))
    with pytest.raises(ValueError, match="equation 'y2' is fitted exactly by its regressors in segment 2003"):
        made(dead, [da.from_array(X, chunks=(60, 2)) * (j + 1) for j in range(4)], 0.0)


def test_what_the_refusals_advise_works() -> None:
    Y, X = drawn()
    dead = without_errors("constant", Y, X, slice(75, 100), 2)
    joined = np.where(YEARS == 2003, 2002, YEARS)
    assert made(dead, X, 0.0, segments=joined).termination.value == "converged"
    assert made(np.delete(dead, 2, axis=1), X, 0.0).termination.value == "converged"
    assert made(dead, X, np.inf).termination.value == "converged"
    with pytest.warns(FitWarning, match="2003: its variance"):
        assert made(dead, X, 6.0).termination.value == "converged"
    chosen = made(dead, X, "cv")
    assert chosen.bandwidth > 3.0
    assert chosen.selection is not None and 1.5 not in chosen.selection.index


@pytest.mark.parametrize(("rows", "rank"), [(1, 0), (2, 0), (1, 1), (2, 1), (3, 1)])
def test_a_segment_of_few_rows_is_named(rows: int, rank: int) -> None:
    Y, X = drawn()
    last = np.where(np.arange(N) < N - rows, 1, 2)
    said = f"segments: 2 has {rows} row{'s' if rows > 1 else ''}, and equation 'y0' has 2 regressors"
    with pytest.raises(ValueError, match=said):
        made(Y, X, 0.0, segments=last, rank=rank)
    assert made(Y, X, 3.0, segments=last, rank=rank).termination.value == "converged"  # the neighbour has enough


def test_weights_of_zero_leave_a_segment_few_rows() -> None:
    Y, X = drawn()
    weights = np.ones(N)
    weights[77:100] = 0.0
    with pytest.raises(ValueError, match="segments: 2003 has 2 rows, and equation 'y0' has 2 regressors"):
        made(Y, X, 0.0, weights=weights)
    found = made(Y, X, 2.0, weights=weights)
    used = weights > 0
    same = made(Y[used], X[used], 2.0, segments=YEARS[used])
    np.testing.assert_allclose(found.coefficients, same.coefficients, rtol=1e-8)


def test_short_segments_everywhere() -> None:
    Y, X = drawn()
    with pytest.raises(ValueError, match="segments: 0 has 2 rows, and 99 more segments like it"):
        made(Y, X, 0.0, segments=np.arange(N) // 2)
    with pytest.raises(ValueError, match="segments: 0 has 1 row, 2 with the neighbours that its bandwidth reaches"):
        made(Y, X, 2.0, segments=np.arange(N))
    near, static = made(Y, X, 30.0, segments=np.arange(N) // 2), made(Y, X, np.inf)
    assert np.abs((near.coefficients - static.coefficients) / static.std_errors.values).max() < 0.5


def test_factors_that_leave_no_errors_are_said() -> None:
    """Own regressors of two equations and one factor fit five rows exactly, three regressors of one do not."""
    rng = np.random.default_rng(0)
    n, K = 100, 3
    Xs = [np.column_stack([np.ones(n), rng.normal(size=(n, 2))]) for _ in range(K)]
    Y = np.column_stack([X.sum(axis=1) for X in Xs]) + rng.normal(size=(n, 1)) + rng.normal(size=(n, K))
    with pytest.warns(FitWarning, match=r"equations 'y0', 'y2' have no errors left in segment 12 \(5 rows\)"):
        LowRankGLS(covariance=TimeVarying(1, np.arange(n) // 5, 0.0), max_sweeps=20).fit(System.from_arrays(Y, Xs))


def test_a_response_that_never_varies_moves_no_other() -> None:
    Y, X = drawn()
    never = Y.copy()
    never[:, 2] = 5.0
    found, others = made(never, X, 0.0), made(np.delete(Y, 2, axis=1), X, 0.0)
    np.testing.assert_allclose(
        np.delete(found.coefficients.reshape(4, 2), 2, axis=0).ravel(), others.coefficients, rtol=1e-6
    )
    np.testing.assert_allclose(found.coefficients.reshape(4, 2)[2], [5.0, 0.0], atol=1e-9)
