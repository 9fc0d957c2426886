"""Columns that are collinear to the rounding of their storage: one rule for all engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import CompressedSystem, LowRankGLS, System, TimeVarying

N, K = 400, 3
WAYS: dict[str, dict[str, Any]] = {
    "compress": {"rank": 1, "engine": "compress"},
    "stream": {"rank": 1, "engine": "stream"},
    "fgls": {"rank": 1, "algorithm": "fgls"},
    "diagonal": {"covariance": "diagonal"},
    "em": {"rank": 1, "missing": "em"},
    "em, complete": {"rank": 1, "missing": "em"},
    "time": {"covariance": TimeVarying(1, np.arange(N) // 100, 0.0)},
}


def columns(dtype: str, apart: float, level: float = 0.0) -> np.ndarray:
    """Three columns, the third the sum of the first two but for `apart` of other variation."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, N)) + level
    return np.column_stack([np.ones(N), a, b, a + b + apart * c]).astype(dtype)


def responses() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=(N, 1)) + rng.normal(size=(N, K))


def fitted(way: str, X: Any) -> Any:
    Y = responses()
    if way == "em":
        Y[::7, 1] = np.nan
    return LowRankGLS(**WAYS[way]).fit(System.from_arrays(Y, X)).result_


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("dtype", "apart", "level"),
    [("f4", 0.0, 0.0), ("f4", 1e-7, 0.0), ("f4", 0.0, 1e3), ("f4", 1e-5, 1e3), ("f2", 1e-3, 0.0), ("f8", 1e-13, 0.0)],
)
def test_refused_whatever_the_engine(way: str, dtype: str, apart: float, level: float) -> None:
    with pytest.raises(np.linalg.LinAlgError, match=r"'x1', 'x2' and 'x3' are collinear .*rank 3 of 4.* lam_B > 0"):
        fitted(way, columns(dtype, apart, level))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("dtype", "apart", "level"), [("f4", 1e-5, 0.0), ("f4", 1e-2, 1e3), ("f8", 1e-5, 1e3)])
def test_fitted_whatever_the_engine(way: str, dtype: str, apart: float, level: float) -> None:
    X = columns(dtype, apart, level)
    found = fitted(way, X).coefficients.reshape(K, 4)[0]
    if way in ("compress", "stream", "diagonal"):
        unit = X.astype(float) - np.array([0.0, 1.0, 1.0, 1.0]) * X.astype(float).mean(axis=0)
        right = np.linalg.lstsq(unit, responses()[:, 0], rcond=None)[0][1:]
        np.testing.assert_allclose(found[1:], right, rtol=1e-4)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_the_ridge_that_the_message_advises(engine: str) -> None:
    X = columns("f4", 0.0)
    found = LowRankGLS(1, lam_B=1.0, engine=engine, rel_tol=1e-13).fit(System.from_arrays(responses(), X)).result_
    same = LowRankGLS(1, lam_B=1.0).fit(System.from_arrays(responses(), columns("f8", 0.0))).result_
    np.testing.assert_allclose(found.coefficients, same.coefficients, atol=1e-5)


CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda X: X,
    "own": lambda X: [X * np.float32(j + 1) for j in range(K)],
    "dask": lambda X: da.from_array(X, chunks=(90, 4)),
    "pandas": lambda X: pd.DataFrame(X, columns=["x0", "x1", "x2", "x3"]),
    "xarray": lambda X: xr.DataArray(X, dims=("obs", "regressor"), coords={"regressor": ["x0", "x1", "x2", "x3"]}),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_containers_keep_the_precision(container: str, engine: str) -> None:
    system = System.from_arrays(responses(), CONTAINERS[container](columns("f4", 0.0)))
    with pytest.raises(np.linalg.LinAlgError, match="'x1', 'x2' and 'x3' are collinear"):
        LowRankGLS(1, engine=engine).fit(system)


def test_stores_and_compressed_systems_keep_it(tmp_path: Any) -> None:
    system = System.from_arrays(responses(), columns("f4", 0.0))
    system.to_zarr(tmp_path / "rows")
    system.compress().to_zarr(tmp_path / "small")
    plain = System.from_arrays(responses(), columns("f8", 1e-7)).compress()
    for kept in (
        System.from_zarr(tmp_path / "rows"),
        CompressedSystem.from_zarr(tmp_path / "small"),
        plain.append(system),
    ):
        with pytest.raises(np.linalg.LinAlgError, match="to the rounding of their values as they are stored"):
            LowRankGLS(1).fit(kept)
    assert np.isfinite(LowRankGLS(1).fit(plain).result_.coefficients).all()


def test_a_column_that_varies_by_rounding_is_a_constant() -> None:
    X = np.column_stack([np.ones(N), 1e4 + 1e-4 * np.random.default_rng(0).normal(size=N)])
    with pytest.raises(np.linalg.LinAlgError, match="columns 'x0' and 'x1' are collinear to the rounding"):
        LowRankGLS(0).fit(System.from_arrays(responses(), X.astype("f4") + np.float32(1e-3) * (X > 1e4)))
    assert np.isfinite(LowRankGLS(0).fit(System.from_arrays(responses(), X)).result_.coefficients).all()


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_integers_are_exact(engine: str) -> None:
    rng = np.random.default_rng(0)
    whole = np.column_stack([np.ones(N), rng.integers(0, 2, N), 10_000 + rng.integers(0, 3, N)]).astype("i4")
    found = LowRankGLS(0, engine=engine).fit(System.from_arrays(responses(), whole)).result_
    same = LowRankGLS(0, engine=engine).fit(System.from_arrays(responses(), whole.astype(float))).result_
    np.testing.assert_array_equal(found.coefficients, same.coefficients)
    twice = np.column_stack([whole, 2 * whole[:, 2] + whole[:, 1]])
    with pytest.raises(np.linalg.LinAlgError, match="collinear"):
        LowRankGLS(0, engine=engine).fit(System.from_arrays(responses(), twice))


def test_prediction_asks_for_no_precision() -> None:
    found = LowRankGLS(1).fit(System.from_arrays(responses(), columns("f8", 1e-2))).result_
    few = columns("f4", 0.0)
    np.testing.assert_allclose(
        found.predict(few).values, few.astype(float) @ found.coefficients.reshape(K, 4).T, rtol=1e-6, atol=1e-8
    )
