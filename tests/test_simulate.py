"""Simulated systems: known parameters, numbers that depend on the seed alone, stores of the right shape."""

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import lrgls_dask.simulate as simulate
from lrgls_dask import System
from lrgls_dask.simulate import rows_for_bytes, simulate_system, simulate_to_zarr

SHAPE = {"n_equations": 4, "n_regressors": 2, "n_shared": 2, "rank": 2}


def arrays(path) -> tuple[np.ndarray, np.ndarray]:
    with xr.open_zarr(path) as ds:
        return ds["X"].values, ds["Y"].values


def drawn(n_obs, row_chunk, seed=0):
    recipe = simulate._recipe(4, 2, 2, 2, seed)
    return dask.compute(*simulate._lazy_arrays(recipe, n_obs, row_chunk))


@settings(max_examples=25, deadline=None)
@given(n_obs=st.integers(1, 500), row_chunk=st.integers(1, 600))
def test_rows_depend_on_seed_and_position_only(n_obs, row_chunk):
    x, y = drawn(500, 500)
    chunked_x, chunked_y = drawn(n_obs, row_chunk)
    np.testing.assert_array_equal(chunked_x, x[:n_obs])
    np.testing.assert_array_equal(chunked_y, y[:n_obs])


def test_seeds_and_cells_differ():
    x, _ = drawn(3 * simulate.CELL, 1000)
    other, _ = drawn(3 * simulate.CELL, 1000, seed=1)
    own = slice(2, None)
    assert not np.isclose(x[:, own], other[:, own]).any()
    assert not np.isclose(x[: simulate.CELL, own], x[simulate.CELL : 2 * simulate.CELL, own]).any()


def test_a_chunk_is_drawn_once_for_x_and_y(monkeypatch):
    calls = []
    draw = simulate.Recipe.draw
    monkeypatch.setattr(simulate.Recipe, "draw", lambda self, *rows: calls.append(rows) or draw(self, *rows))
    drawn(1000, 130)
    assert sorted(calls) == [(start, min(start + 130, 1000)) for start in range(0, 1000, 130)]


def test_truth_is_what_the_rows_were_drawn_from(tmp_path):
    truth = simulate_to_zarr(tmp_path / "s.zarr", n_obs=40_000, seed=3, **SHAPE)
    x, y = arrays(tmp_path / "s.zarr")
    assert (x[:, 0] == 1).all()
    residuals = np.empty_like(y)
    for j, equation in enumerate(truth.loadings["equation"].values):
        mine = truth.params.values[truth.params["equation"].values == equation]
        columns = [0, 1, 2 + 2 * j, 3 + 2 * j]
        estimate = np.linalg.lstsq(x[:, columns], y[:, j], rcond=None)[0]
        np.testing.assert_allclose(estimate, mine, atol=5 * np.sqrt(truth.sigma().values[j, j] / 40_000))
        residuals[:, j] = y[:, j] - x[:, columns] @ mine
    sigma = truth.sigma().values
    sd = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / 40_000)
    assert (np.abs(residuals.T @ residuals / 40_000 - sigma) < 5 * sd).all()
    np.testing.assert_allclose(sigma - np.diag(truth.idio_var), truth.loadings.values @ truth.loadings.values.T)


def test_labels_are_those_of_the_system():
    simulation = simulate_system(n_obs=50, **SHAPE)
    design = simulation.system.design
    assert design.equations == tuple(simulation.loadings["equation"].values)
    assert [term for terms in design.terms for term in terms] == list(simulation.params["regressor"].values)
    assert list(np.repeat(design.equations, design.sizes)) == list(simulation.params["equation"].values)


def test_sizes_and_nothing_drawn(monkeypatch):
    monkeypatch.setattr(simulate.Recipe, "draw", lambda *_: pytest.fail("rows were drawn"))
    system = simulate_system(n_obs=10**9, n_equations=50, n_regressors=5, rank=3, row_chunk=10**7).system
    assert (system.n_obs, system.n_equations, system.n_regressors, system.n_coefficients) == (10**9, 50, 250, 250)


def test_store_is_what_the_lazy_system_would_be(tmp_path):
    stored = simulate_to_zarr(tmp_path / "s.zarr", n_obs=730, row_chunk=200, seed=5, **SHAPE)
    recipe = simulate._recipe(4, 2, 2, 2, 5)
    x, y = dask.compute(*simulate._lazy_arrays(recipe, 730, 99))
    stored_x, stored_y = arrays(tmp_path / "s.zarr")
    np.testing.assert_array_equal(stored_x, x)
    np.testing.assert_array_equal(stored_y, y)
    assert (stored.system.n_obs, stored.system.n_regressors) == (730, 10)
    with xr.open_zarr(tmp_path / "s.zarr") as ds:
        assert ds.attrs["lrgls_format"] == 1
        assert ds["X"].chunks[0] == ds["Y"].chunks[0] == (200, 200, 200, 130)


def test_default_chunks_are_8_to_30_mb():
    for columns in (20, 250, 3000, 20_000):
        assert 8e6 <= simulate.default_row_chunk(columns) * columns * 8 <= 30e6


def test_store_opens_again_and_is_refused_the_second_time(tmp_path):
    simulate_to_zarr(tmp_path / "s.zarr", n_obs=100, **SHAPE)
    assert System.from_zarr(tmp_path / "s.zarr").n_obs == 100
    with pytest.raises(FileExistsError, match=r"s\.zarr"):
        simulate_to_zarr(tmp_path / "s.zarr", n_obs=200, **SHAPE)
    assert System.from_zarr(tmp_path / "s.zarr").n_obs == 100
    simulate_to_zarr(tmp_path / "s.zarr", n_obs=200, overwrite=True, **SHAPE)
    assert System.from_zarr(tmp_path / "s.zarr").n_obs == 200


def test_more_than_the_disk_holds_is_refused_before_writing(tmp_path):
    with pytest.raises(OSError, match=r"needs 112000000\.0 GB but .* GB free"):
        simulate_to_zarr(tmp_path / "s.zarr", n_obs=10**15, row_chunk=10**13, **SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_obs": 0}, "n_obs must be a whole number of at least 1, not 0"),
        ({"n_obs": 2.5}, r"n_obs .* not 2\.5"),
        ({"n_obs": True}, "n_obs .* not True"),
        ({"n_equations": 0}, "n_equations .* at least 1"),
        ({"n_regressors": -1}, "n_regressors .* at least 0, not -1"),
        ({"n_regressors": 0, "n_shared": 0}, "at least one regressor"),
        ({"rank": 5}, "rank is 5 but there are 4 equations"),
        ({"seed": -1}, "seed .* not -1"),
        ({"row_chunk": 0}, "row_chunk .* not 0"),
    ],
)
def test_bad_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        simulate_system(**{"n_obs": 10, **SHAPE, **change})


def test_rows_for_bytes_fills_the_size_asked_for():
    rows = rows_for_bytes(1e9, n_equations=50, n_regressors=5)
    assert rows * 8 * (250 + 50) <= 1e9 < (rows + 1) * 8 * (250 + 50)
    assert rows_for_bytes(1, n_equations=50, n_regressors=5, n_shared=3) == 1
