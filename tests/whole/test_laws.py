"""Laws that hold for every data set: descent, stationarity, order, units, offsets, duplication, chunking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from support.fits import assert_params_close, by_gram, fit
from support.strategies import ragged
from support.systems import Data, dask_rows, simulate

pytestmark = pytest.mark.usefixtures("small_blocks")

KINDS = ["own", "shared", "mixed"]
ENGINES = ["compress", "stream"]
PENALTIES: list[dict[str, float]] = [{}, {"lam_F": 0.02, "lam_B": 3.0}]


# ---------------------------------------------------------------------------------- descent, stationarity


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["own", "mixed"])
def test_no_half_step_raises_the_objective(kind: str, engine: str, penalties: dict[str, float]) -> None:
    trace = fit(simulate(kind).system(), engine=engine, **penalties).trace
    assert set(trace["step"]) >= {"start", "sigma", "beta"}
    assert_falls(trace["obj"].to_numpy())
    assert (trace["obj"] - trace["nll"]).min() >= 0.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore:LowRankGLS. stalled")
def test_principal_components_never_raise_it_either(engine: str) -> None:
    model = LowRankGLS(2, engine=engine, sigma_step="pca", lam_F=0.1).fit(simulate("mixed").system())
    assert_falls(model.result_.trace["obj"].to_numpy())
    steps = model.result_.trace["accept_t"]
    assert set(steps) <= {0.5**i for i in range(11)} | {0.0}


def assert_falls(obj: np.ndarray) -> None:
    assert len(obj) >= 3
    assert obj[-1] < obj[0] - 0.1
    assert np.diff(obj).max() <= 1e-13 * np.abs(obj).max()


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences_vanish_at_the_optimum(kind: str, weighted: bool, penalties: dict[str, float]) -> None:
    data = simulate(kind, n=80, K=5, k=1, seed=1, weighted=weighted)
    found, dense = fit(data.system(), rank=1, **penalties), data.dense(**penalties)
    assert not found.on_floor

    def objective(theta: np.ndarray) -> float:
        """In coordinates in which one is a standard error, or a residual sd."""
        P = len(dense.ols)
        b = found.params.values + found.std_errors.values * theta[:P]
        F = found.loadings.values + dense.s[:, None] * theta[P : P + 5].reshape(5, 1)
        return dense.objective(b, F, found.idio_var.values * np.exp(theta[P + 5 :]))

    size = len(dense.ols) + 10
    step = 1e-4 * np.eye(size)
    slopes = np.array([(objective(e) - objective(-e)) / 2e-4 for e in step])
    np.testing.assert_allclose(objective(np.zeros(size)), found.objective, rtol=1e-12)
    assert np.abs(slopes).max() < 1e-7
    away = np.full(size, 0.01)
    assert min(abs(objective(away + e) - objective(away - e)) / 2e-4 for e in step) > 1e-6


# ---------------------------------------------------------------------------------- order


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_and_of_chunks_does_not_matter(kind: str, engine: str) -> None:
    data = simulate(kind, weighted=True)
    straight = fit(data.system(dask_rows(40)), engine=engine)
    shuffled = fit(data.take(np.random.default_rng(3).permutation(240)).system(dask_rows(40)), engine=engine)
    assert_params_close(shuffled, straight, 1e-8)
    assert abs(shuffled.loglik - straight.loglik) < 1e-9

    def turned(a: np.ndarray) -> da.Array:
        blocks = da.from_array(a, chunks=(40, *a.shape[1:])).blocks
        return da.concatenate([blocks[i] for i in (5, 0, 3, 1, 4, 2)])

    assert_params_close(fit(data.system(turned), engine=engine), straight, 1e-8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_equations_in_another_order_give_the_same_numbers_in_that_order(kind: str, engine: str) -> None:
    data = simulate(kind)
    order = np.array([3, 0, 5, 1, 4, 2])
    turned = Data(kind, data.Y[:, order], data.X, tuple(data.columns[j] for j in order))
    labels = [f"y{j}" for j in order]
    straight, found = fit(data.system(), engine=engine), fit(turned.system(equations=labels), engine=engine)
    for j in range(6):
        mine, theirs = (f.params.values[f.params["equation"].values == f"y{j}"] for f in (found, straight))
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)
    both = found.sigma().sel(equation=list(straight.equations), equation_other=list(straight.equations))
    np.testing.assert_allclose(both.values, straight.sigma().values, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.loadings.values, straight.loadings.values[order], rtol=1e-6, atol=1e-7)
    assert abs(found.loglik - straight.loglik) < 1e-9


def test_columns_in_another_order_give_the_same_numbers_in_that_order() -> None:
    data = simulate("shared")
    order = np.array([2, 0, 3, 1])
    turned = fit(System.from_arrays(data.Y, data.X[:, order]), lam_B=1.0).params.values.reshape(6, 4)
    straight = fit(data.system(), lam_B=1.0).params.values.reshape(6, 4)
    np.testing.assert_allclose(turned, straight[:, order], rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------------------- units


@pytest.mark.parametrize("penalties", [{"lam_B": 3.0}, {"lam_F": 0.02, "lam_B": 3.0}])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_units_change_fitted_values_by_rounding_only(kind: str, engine: str, penalties: dict[str, float]) -> None:
    data = simulate(kind)
    y_unit = 10.0 ** np.array([6, -6, 0, -6, 6, 0])
    x_unit = 10.0 ** np.resize([-6, 6, 0, 6, -6], data.X.shape[1])
    other = replace(data, Y=data.Y * y_unit, X=data.X * x_unit)
    plain, scaled = (fit(d.system(), engine=engine, **penalties) for d in (data, other))
    before, after = (f.predict(d.system()).values for f, d in ((plain, data), (scaled, other)))
    off = np.linalg.norm(after / y_unit - before, axis=0) / np.linalg.norm(before, axis=0)
    assert off.max() < 1e-9
    jacobian = 240 * np.log(y_unit).sum()
    np.testing.assert_allclose(scaled.loglik, plain.loglik - jacobian, rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(scaled.idio_var.values, plain.idio_var.values * y_unit**2, rtol=1e-6)


@pytest.mark.parametrize("route", ["qr", "gram", "stream"])
def test_large_offsets_keep_their_digits(route: str) -> None:
    """y = 1e6 + noise and x = 1e14 + noise: slopes, Sigma and likelihood are those of the noise alone."""
    small = simulate("shared")
    X = np.round(64 * small.X) / 64  # what 1e14 + noise can store
    X[:, 0] = 1.0
    offsets = np.array([0.0, 1e14, 3.0, -1e14])
    plain = fit(System.from_arrays(small.Y, X))
    shifted = System.from_arrays(small.Y + 1e6, X + offsets)
    found = fit(by_gram(shifted) if route == "gram" else shifted, engine="stream" if route == "stream" else "compress")
    slopes, expected, se = (f.values.reshape(6, 4)[:, 1:] for f in (found.params, plain.params, plain.std_errors))
    assert np.abs((slopes - expected) / se).max() < 1e-8
    np.testing.assert_allclose(found.std_errors.values.reshape(6, 4)[:, 1:], se, rtol=1e-8)
    np.testing.assert_allclose(found.sigma().values, plain.sigma().values, rtol=1e-8, atol=1e-9)
    assert abs(found.loglik - plain.loglik) < 1e-6


# ---------------------------------------------------------------------------------- duplication


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_data_twice_double_the_likelihood(engine: str) -> None:
    data = simulate("mixed", weighted=True)
    once, twice = (fit(data.take(np.tile(np.arange(240), times)).system(), engine=engine) for times in (1, 2))
    assert_params_close(twice, once, 1e-8)
    np.testing.assert_allclose(twice.loglik, 2 * once.loglik, rtol=1e-12)
    np.testing.assert_allclose(twice.std_errors.values, once.std_errors.values / np.sqrt(2), rtol=1e-7)
    assert twice.n_obs == 2 * once.n_obs


# ---------------------------------------------------------------------------------- chunking

N = 31
TINY = simulate("mixed", n=N, K=4, k=1, seed=4, weighted=True)


def tiny_fit(engine: str, Y: Any, X: Any, weights: Any) -> Fit:
    incidence = np.zeros((X.shape[1], 4), dtype=bool)
    for j, columns in enumerate(TINY.columns):
        incidence[columns, j] = True
    return fit(System.from_arrays(Y, X, incidence=incidence, weights=weights), rank=1, engine=engine)


@pytest.fixture(scope="module")
def tiny_expected(small_blocks: None) -> Fit:
    return tiny_fit("compress", TINY.Y, TINY.X, TINY.weights)


@settings(deadline=None, max_examples=30)
@given(
    y=ragged(N, 12), x=ragged(N, 12), w=ragged(N, 12), width=st.sampled_from([1, 2, 6]), engine=st.sampled_from(ENGINES)
)
def test_chunking_is_never_visible_in_the_answer(tiny_expected, y, x, w, width, engine) -> None:
    found = tiny_fit(
        engine,
        da.from_array(TINY.Y, chunks=(y, 4)),
        da.from_array(TINY.X, chunks=(x, width)),
        da.from_array(TINY.weights, chunks=(w,)),
    )
    assert_params_close(found, tiny_expected, 1e-7)
    assert abs(found.loglik - tiny_expected.loglik) < 1e-9


def test_heywood_cases_end_on_the_floor_and_still_descend() -> None:
    """A variance at zero is the optimum when two columns of Y are nearly one."""
    data = simulate("shared", k=1)
    Y = data.Y.copy()
    Y[:, 1] = Y[:, 0] + 1e-4 * np.random.default_rng(5).normal(size=240)
    with pytest.warns(FitWarning, match=r"Heywood case\) in equation"):
        found = fit(System.from_arrays(Y, data.X), rank=1, d_floor=1e-6)
    assert set(found.on_floor) <= {"y0", "y1"}
    assert len(found.on_floor) >= 1
    assert_falls(found.trace["obj"].to_numpy())
