"""A cell that is not observed asks nothing of its regressors: whatever they hold changes no bit of any result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.errors import BadValues
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.cells import UsedCells, only_used
from support.incomplete import dense_loglik
from support.systems import Data

N, K = 240, 4
NAMES = tuple("abcd")
DATES = pd.date_range("2001-01-31", periods=N, freq="ME")


def panel(seed: int = 0, level: float = 50.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Y with a late starter, scattered holes and an empty row; a constant, a market and own regressors (N, K)."""
    rng = np.random.default_rng(seed)
    market, own = rng.normal(size=N) + 2, rng.normal(size=(N, K)) + level
    errors = rng.normal(size=(N, 1)) @ rng.normal(size=(1, K)) + rng.normal(size=(N, K))
    Y = 1 + 0.5 * market[:, None] + own * np.linspace(0.2, 1, K) + errors
    holes = rng.random((N, K)) < 0.05
    holes[:90, 2] = holes[7] = True
    return np.where(holes, np.nan, Y), np.ones(N), market, own


Y, CONST, MARKET, OWN = panel()
HOLES = np.isnan(Y)


def filled(fill: float) -> list[np.ndarray]:
    """Regressors of every equation, with a number where nobody looks: own ones in holes, shared ones in empty rows."""
    empty = HOLES.all(axis=1)
    const, market = (np.where(empty, fill, column) for column in (CONST, MARKET))
    own = np.where(HOLES, fill, OWN)
    return [np.column_stack([const, market, own[:, j]]) for j in range(K)]


def dataset(fill: float) -> xr.Dataset:
    Xs = filled(fill)
    return xr.Dataset(
        {
            "y": (("time", "firm"), Y.copy()),
            "const": ("time", Xs[0][:, 0]),
            "market": ("time", Xs[0][:, 1]),
            "own": (("time", "firm"), np.column_stack([X[:, 2] for X in Xs])),
        },
        {"time": DATES, "firm": list(NAMES)},
    )


def labelled(ds: xr.Dataset) -> System:
    return System.from_xarray(ds, "y", ["const", "market", "own"], obs="time", equation="firm")


def stored(fill: float, tmp_path: Path) -> System:
    path = tmp_path / f"{fill}.zarr"
    labelled(dataset(fill)).to_zarr(path, row_chunk=50)
    return System.from_zarr(path)


def frames(fill: float) -> System:
    named = zip(NAMES, filled(fill), strict=True)
    Xs = [pd.DataFrame(X, DATES, ["const", "market", f"own_{name}"]) for name, X in named]
    return System.from_arrays(pd.DataFrame(Y, DATES, list(NAMES)), Xs)


RNG = np.random.default_rng(3)
WEIGHTS_OF_ROWS = np.where(np.arange(N) % 40 == 9, 0.0, np.exp(0.3 * RNG.normal(size=N)))
WEIGHTS_OF_CELLS = np.exp(0.3 * RNG.normal(size=(N, K)))
CONTAINERS: dict[str, Callable[[float, Path], System]] = {
    "numpy": lambda fill, _: System.from_arrays(Y, filled(fill)),
    "dask": lambda fill, _: System.from_arrays(
        da.from_array(Y, chunks=(64, K)), [da.from_array(X, chunks=(64, 3)) for X in filled(fill)]
    ),
    "pandas": lambda fill, _: frames(fill),
    "xarray": lambda fill, _: labelled(dataset(fill)),
    "chunked xarray": lambda fill, _: labelled(dataset(fill).chunk(time=70)),
    "zarr": stored,
    "weights of rows": lambda fill, _: System.from_arrays(Y, filled(fill), weights=WEIGHTS_OF_ROWS),
    "weights of cells": lambda fill, _: System.from_arrays(Y, filled(fill), weights=WEIGHTS_OF_CELLS),
}


@pytest.mark.parametrize("engine", ["auto", "stream"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_unused_regressors_hold_changes_no_bit(container: str, engine: str, tmp_path: Path) -> None:
    make = CONTAINERS[container]
    fits = [
        LowRankGLS(1, missing="em", engine=engine).fit(make(fill, tmp_path)).result_ for fill in (np.nan, 0.0, -1e9)
    ]
    first = fits[0]
    assert np.isfinite(first.params).all() and np.isfinite(first.std_errors).all()
    for fit in fits[1:]:
        np.testing.assert_array_equal(first.params, fit.params)
        np.testing.assert_array_equal(first.std_errors, fit.std_errors)
        np.testing.assert_array_equal(first.sigma(), fit.sigma())
        assert first.loglik == fit.loglik
    system = make(np.nan, tmp_path / "again")
    assert first.score(system) == first.score(make(5.0, tmp_path / "again"))
    np.testing.assert_array_equal(np.isnan(first.residuals(system).values), HOLES)
    np.testing.assert_array_equal(np.isnan(first.predict(system).values), HOLES)
    np.testing.assert_array_equal(
        first.cov("observed", system=system), first.cov("observed", system=make(2.0, tmp_path / "again"))
    )


@pytest.mark.parametrize("engine", ["auto", "stream"])
@pytest.mark.parametrize("level", [0.0, 1e5])
def test_the_likelihood_is_that_of_the_observed_cells(engine: str, level: float) -> None:
    """Far from zero too: anchors and means see nothing of what stands in for unused regressors."""
    Yp, const, market, own = panel(1, level)
    holes = np.isnan(Yp)
    Xs = [np.column_stack([const, market, np.where(holes[:, j], np.nan, own[:, j])]) for j in range(K)]
    fit = LowRankGLS(1, missing="em", engine=engine).fit(System.from_arrays(Yp, Xs)).result_
    # the oracle in columns that are centred, which the constant makes good for
    shift = np.where(np.arange(3) == 2, level, 0.0)
    b = fit.params.values.reshape(K, 3).copy()
    b[:, 0] += b[:, 2] * level
    columns = [np.arange(3 * j, 3 * j + 3) for j in range(K)]
    centred = [np.nan_to_num(X - shift) for X in Xs]
    data = Data("own", Yp, np.hstack(centred), tuple(columns))
    dense = dense_loglik(data, b.ravel(), fit.sigma().values)
    assert fit.loglik == pytest.approx(dense, abs=1e-6 * max(1.0, level * 1e-4))


def test_rows_of_several_engines_say_the_same_and_as_whole_regressors_do() -> None:
    whole = [np.column_stack([CONST, MARKET, OWN[:, j]]) for j in range(K)]
    known = LowRankGLS(1, missing="em").fit(System.from_arrays(Y, whole)).result_
    found = LowRankGLS(1, missing="em").fit(System.from_arrays(Y, filled(np.nan))).result_
    np.testing.assert_array_equal(known.params, found.params)


def test_drop_leaves_out_rows_that_miss_a_response_or_a_regressor() -> None:
    Xs = filled(np.nan)
    Xs[1][200, 2] = np.nan  # whose response is observed
    kept = ~(HOLES.any(axis=1) | (np.arange(N) == 200))
    expected = LowRankGLS(1).fit(System.from_arrays(Y[kept], [X[kept] for X in Xs])).result_
    for engine in ("compress", "stream"):
        fit = LowRankGLS(1, missing="drop", engine=engine, rel_tol=1e-12).fit(System.from_arrays(Y, Xs)).result_
        assert fit.n_obs == kept.sum() and fit.n_dropped == (~kept).sum()
        np.testing.assert_allclose(fit.params, expected.params, rtol=1e-4)


def test_raise_names_the_response_and_its_remedies_work() -> None:
    system = System.from_arrays(Y, filled(np.nan), equations=NAMES)
    with pytest.raises(BadValues, match=r"Y, equation .* missing='em', .* or missing='drop'"):
        LowRankGLS(1).fit(system)
    for missing in ("em", "drop"):
        assert LowRankGLS(1, missing=missing).fit(system).result_.n_obs > 100


@pytest.mark.parametrize("engine", ["auto", "stream"])
@pytest.mark.parametrize("missing", ["raise", "em"])
def test_a_regressor_that_an_observed_response_uses_is_named_with_its_cells(missing: str, engine: str) -> None:
    ds = dataset(np.nan) if missing == "em" else dataset(np.nan).isel(time=np.flatnonzero(~HOLES.any(axis=1)))
    row = 101
    ds["market"][row] = np.nan
    if missing == "em":
        ds["y"][row, 1:] = [1.0, np.nan, 2.0]
        ds["y"][row, 0] = np.nan
        users = "equations 'b', 'd'"
    else:
        users = "equations 'a', 'b', 'c', 'd'"
    label = str(ds["time"].values[row])[:10]
    with pytest.raises(
        BadValues, match=f"regressor 'market': NaN value at row {row}, labelled {label}.* {users}.*missing='drop'"
    ):
        LowRankGLS(1, missing=missing, engine=engine).fit(labelled(ds))
    assert LowRankGLS(1, missing="drop", engine=engine).fit(labelled(ds)).result_.n_obs > 100
    ds["y"][row] = np.nan
    assert LowRankGLS(1, missing="em", engine=engine).fit(labelled(ds)).result_.n_obs > 100


@pytest.mark.parametrize("engine", ["auto", "stream"])
def test_infinities_are_errors_wherever_they_are(engine: str) -> None:
    Xs = filled(np.nan)
    Xs[2][20, 2] = np.inf
    with pytest.raises(BadValues, match="infinite value at row 20"):
        LowRankGLS(1, missing="em", engine=engine).fit(System.from_arrays(Y, Xs))


@pytest.fixture
def not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are too many to be held, or reduced by QR."""
    monkeypatch.setattr("lrgls_dask.compression.patterns.HELD_BYTES", 0)
    monkeypatch.setattr("lrgls_dask.compression.patterns.qr_is_cheap", lambda rows: False)


def test_infinities_of_rows_that_are_not_held_are_errors(not_held: None) -> None:
    Xs = filled(np.nan)
    Xs[2][20, 2] = np.inf
    with pytest.raises(BadValues, match="infinite value at row 20"):
        LowRankGLS(1, missing="em").fit(System.from_arrays(Y, Xs))


def test_unused_regressors_change_no_bit_of_rows_in_few_patterns_that_are_not_held(not_held: None) -> None:
    fits = [LowRankGLS(1, missing="em").fit(System.from_arrays(Y, filled(f))).result_ for f in (0.0, np.nan, 1e308)]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.params, fits[0].params)
        assert other.loglik == fits[0].loglik


@pytest.mark.parametrize("fill", [np.nan, 1e308])
def test_unused_regressors_change_no_bit_of_measures_that_are_streamed(
    fill: float, not_held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrgls_dask.compression.patterns.MOST_PATTERNS", 1)
    model = LowRankGLS(1, missing="em", engine="stream", rel_tol=1e-6)
    expected, found = (model.fit(labelled(dataset(f))).result_ for f in (0.0, fill))  # whose equations share columns
    assert found.run.engine == "stream"
    assert found.mcelroy_r2() == expected.mcelroy_r2()
    assert found.breusch_pagan().statistic == expected.breusch_pagan().statistic


@dataclass(frozen=True)
class Unlabelled:
    """What cannot be looked into, of a kernel that takes unused cells times zero."""

    sums: np.ndarray


def test_sums_that_cannot_be_looked_into_are_taken_of_cleared_blocks() -> None:
    """Rather than handed on with what unused cells have made of them."""

    def kernel(block: Block, params: None) -> Unlabelled:
        return Unlabelled(np.nan_to_num(block.y[0]).T @ block.x[0])

    kernel.masks_unused = True  # type: ignore[attr-defined]
    design = System.from_arrays(Y, filled(0.0)).design
    blocks = [Block(0, (np.hstack(filled(fill)),), (Y,), None) for fill in (0.0, np.nan)]
    expected, found = (UsedCells(kernel, design.users, holes=True)(block, None).sums for block in blocks)
    np.testing.assert_array_equal(found, expected)


def test_a_column_that_no_equation_uses_may_hold_anything() -> None:
    rng = np.random.default_rng(0)
    y, X = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    incidence = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]], dtype=bool)
    expected = LowRankGLS(1).fit(System.from_arrays(y, X * [1, 1, 0], incidence=incidence)).result_
    X[5, 2] = np.nan
    for missing in ("raise", "drop", "em"):
        fit = LowRankGLS(1, missing=missing).fit(System.from_arrays(y, X, incidence=incidence)).result_
        assert fit.n_obs == 60
        np.testing.assert_allclose(fit.params, expected.params, rtol=1e-8)


def test_complete_blocks_are_not_copied_and_the_users_arrays_not_written_to() -> None:
    design = System.from_arrays(Y, filled(np.nan)).design
    X, complete = np.hstack(filled(np.nan)), ~HOLES.any(axis=1)
    block = Block(0, (X[complete],), (Y[complete],), None)
    assert only_used(block, design.users) is block
    before = X.copy()
    cleared = only_used(Block(0, (X,), (Y,), None), design.users)
    np.testing.assert_array_equal(X, before)
    assert np.isfinite(cleared.x[0]).all()


@pytest.mark.parametrize("of", ["rows", "cells"])
def test_weights_of_what_is_not_observed_are_not_asked_for(of: str, tmp_path: Path) -> None:
    """Reshaping a long table makes them NaN in the same cells; a calendar has rows without anything."""
    whole = WEIGHTS_OF_ROWS[:, None] if of == "rows" else WEIGHTS_OF_CELLS
    holes = HOLES.all(axis=1, keepdims=True) if of == "rows" else HOLES
    fits, weights = [], np.where(holes, np.nan, whole)
    for engine, given in (("auto", whole), ("auto", weights), ("stream", da.from_array(weights, chunks=(64, -1)))):
        system = System.from_arrays(Y, filled(0.0), weights=given)
        fit = LowRankGLS(0, missing="em", engine=engine).fit(system).result_
        fits.append([fit.params, fit.sigma(), fit.loglik, fit.score(system), fit.cov("robust")])
        assert not np.isnan(fit.predict_given(system, interval=0.9, kind="error").to_array()).any()
    for fit in fits[1:]:
        for found, wanted in zip(fit, fits[0], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-8)
    filled_in = tmp_path / "filled.zarr"
    LowRankGLS(0, missing="em").fit(system).result_.impute(system, filled_in)
    assert np.isfinite(xr.open_zarr(filled_in, consolidated=False)["weights"]).all()
    weights[8] = np.nan
    for given in (weights, da.from_array(weights, chunks=(64, -1))):
        with pytest.raises(ValueError, match=r"weights.*[Nn]a[Nn].* at row 8"):
            LowRankGLS(0, missing="em").fit(System.from_arrays(Y, filled(0.0), weights=given))
