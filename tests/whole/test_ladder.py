"""Special cases that must coincide: with textbook estimators and with each other, whatever the route or storage."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.rows.layout import cut_rows
from support.fits import TIGHT, assert_params_close, by_gram, fit
from support.systems import Data, dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.usefixtures("small_blocks")

KINDS = ["own", "shared", "mixed"]
PENALTIES = [{}, {"lam_B": 3.0}, {"lam_F": 0.02, "lam_B": 3.0}]


def assert_all_close(found: Fit, expected: Fit, rtol: float) -> None:
    """Everything that is reported, rotations and sign of the loadings included."""
    assert_params_close(found, expected, rtol)
    sd = np.sqrt(expected.sigma_diagonal)
    assert np.abs((found.sigma().values - expected.sigma().values) / np.outer(sd, sd)).max() < 2 * rtol
    assert abs(found.loglik - expected.loglik) < rtol * abs(expected.loglik)
    assert abs(found.objective - expected.objective) < rtol * abs(expected.objective)
    np.testing.assert_allclose(found.std_errors.values, expected.std_errors.values, rtol=rtol)
    assert (found.n_obs, found.rank) == (expected.n_obs, expected.rank)


# ---------------------------------------------------------------------------------- textbook estimators


def test_one_equation_is_ordinary_least_squares() -> None:
    data = simulate("shared", K=1)
    one, dense = fit(data.system(), rank="auto"), data.dense()
    assert one.rank == 0
    np.testing.assert_allclose(one.params.values, dense.ols, rtol=1e-12)
    np.testing.assert_allclose(one.idio_var.values, dense.s**2, rtol=1e-12)
    np.testing.assert_allclose(one.nll, dense.nll(dense.ols, np.diag(dense.s**2)), rtol=1e-13)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_common_regressors_give_ordinary_least_squares_whatever_sigma(engine: str) -> None:
    data = simulate("shared")
    np.testing.assert_allclose(fit(data.system(), engine=engine).params.values, data.dense().ols, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_rank_zero_is_each_equation_by_itself(kind: str, engine: str) -> None:
    data = simulate(kind, weighted=True)
    diagonal, dense = fit(data.system(), rank=0, engine=engine), data.dense()
    np.testing.assert_allclose(diagonal.params.values, dense.ols, rtol=1e-10)
    np.testing.assert_allclose(diagonal.idio_var.values, dense.s**2, rtol=1e-11)
    assert diagonal.loadings.shape == (6, 0)
    np.testing.assert_allclose(diagonal.nll, dense.nll(dense.ols, np.diag(dense.s**2)), rtol=1e-12)


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_joint_optimum_is_that_of_dense_matrices(kind: str, weighted: bool, penalties: dict[str, float]) -> None:
    data = simulate(kind, n=60, K=5, k=1, weighted=weighted, unit=7.0)
    found, dense = fit(data.system(), rank=1, **penalties), data.dense(**penalties)
    b, F, d, objective = dense.joint(1)
    assert abs(found.objective - objective) < 1e-10 * abs(objective)
    np.testing.assert_allclose(found.nll, dense.nll(b, F @ F.T + np.diag(d)), rtol=1e-9)
    se = np.sqrt(np.diag(dense.cov(F @ F.T + np.diag(d))))
    assert np.abs((found.params.values - b) / se).max() < 1e-5
    np.testing.assert_allclose(found.sigma().values, F @ F.T + np.diag(d), rtol=1e-5, atol=1e-5 * d.max())
    np.testing.assert_allclose(found.params.values, dense.gls(found.sigma().values), rtol=1e-8, atol=1e-9)


# ---------------------------------------------------------------------------------- engines and routes


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_compress_equals_stream(kind: str, weighted: bool, penalties: dict[str, float]) -> None:
    data = simulate(kind, weighted=weighted, unit=100.0)
    compressed = fit(data.system(), engine="compress", **penalties)
    streamed = fit(data.system(dask_rows(37)), engine="stream", **penalties)
    assert (compressed.engine, streamed.engine) == ("compress", "stream")
    assert compressed.n_passes == 1 < streamed.n_passes
    # with lam_F the factor step has no closed form and ends where the objective shows no more digits: half as many
    assert_all_close(streamed, compressed, 2e-7 if "lam_F" in penalties else 2e-8)
    np.testing.assert_allclose(streamed.loadings.values, compressed.loadings.values, rtol=1e-5, atol=1e-5)


def test_compress_equals_stream_with_principal_components() -> None:
    """No maximum likelihood: both end where no step lowers the objective, on the same path."""
    data = simulate("mixed")
    options = {"sigma_step": "pca", "rel_tol": 1e-9}
    with pytest.warns(UserWarning, match="stalled"):
        compressed = LowRankGLS(2, engine="compress", **options).fit(data.system()).result_
    with pytest.warns(UserWarning, match="stalled"):
        streamed = LowRankGLS(2, engine="stream", **options).fit(data.system()).result_
    assert compressed.termination is streamed.termination
    assert_params_close(streamed, compressed, 1e-5)
    assert compressed.nll > fit(data.system()).nll


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_cross_products_equal_qr(kind: str, weighted: bool) -> None:
    data = simulate(kind, weighted=weighted)
    assert_all_close(fit(by_gram(data.system())), fit(data.system()), 1e-8)


# ---------------------------------------------------------------------------------- storage and chunks


@pytest.mark.parametrize("engine", ["compress", pytest.param("stream", marks=pytest.mark.slow)])
def test_one_chunk_equals_a_thousand(engine: str, every_chunk_a_block: None) -> None:
    data = simulate("mixed", n=1000)
    assert cut_rows(data.system(dask_rows(1)).rows, 0).n_blocks == 1000
    whole, cut = (fit(data.system(dask_rows(rows)), engine=engine, **TIGHT) for rows in (1000, 1))
    assert_all_close(cut, whole, 1e-8)


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("wrap", [dask_rows(37), zarr_rows(50), zarr_rows(7)], ids=["dask", "zarr50", "zarr7"])
def test_numpy_equals_every_other_storage(wrap, engine: str) -> None:
    data = simulate("own", n=120, weighted=True)
    assert_all_close(fit(data.system(wrap), engine=engine), fit(data.system(), engine=engine), 1e-8)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_smaller_dtypes_equal_their_float64_values(engine: str) -> None:
    """Arithmetic is float64 whatever is stored: float32, integers and booleans lose nothing but what storing lost."""
    data = simulate("shared")
    X = np.column_stack([data.X[:, 0], np.round(3 * data.X[:, 1]), data.X[:, 2] > 0, data.X[:, 3].astype("f4")])
    Y = (data.Y + (X - data.X) @ data.dense().ols.reshape(6, 4).T).astype("f4")
    promoted = fit(System.from_arrays(Y.astype(float), X), engine=engine)
    kinds = ["int8", "int64", "bool", "float32"]
    parts = [da.from_array(X[:, [i]].astype(kind), chunks=(37, 1)) for i, kind in enumerate(kinds)]
    columns = System.from_arrays(Y, da.concatenate(parts, axis=1))
    assert_all_close(fit(columns, engine=engine), promoted, 1e-9)
    each = System.from_arrays(Y, np.asfortranarray(X.astype("f4")))
    assert_all_close(fit(each, engine=engine), promoted, 1e-9)


# ---------------------------------------------------------------------------------- row weights


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_rows_of_weight_zero_are_dropped(engine: str) -> None:
    data = simulate("mixed", weighted=True)
    weights = data.weights.copy()
    weights[::3] = 0.0
    Y = data.Y.copy()
    Y[::3] = np.nan  # what they hold must not matter
    zeroed = fit(replace(data, weights=weights, Y=Y).system(dask_rows(50)), engine=engine)
    assert_all_close(zeroed, fit(data.take(weights > 0).system(), engine=engine), 1e-8)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_weights_are_precisions_not_repetitions(engine: str) -> None:
    """Var(e_i) = Sigma / w_i: a common factor of the weights goes to Sigma, and N does not change."""
    data = simulate("own", weighted=True)
    plain, quadrupled = (
        fit(replace(data, weights=factor * data.weights).system(), engine=engine) for factor in (1.0, 4.0)
    )
    assert_params_close(quadrupled, plain, 1e-9)
    np.testing.assert_allclose(quadrupled.sigma().values, 4 * plain.sigma().values, rtol=1e-8)
    np.testing.assert_allclose(quadrupled.loglik, plain.loglik, rtol=1e-12)
    np.testing.assert_allclose(quadrupled.std_errors.values, plain.std_errors.values, rtol=1e-8)
    assert quadrupled.n_obs == plain.n_obs == 240


def test_weighting_is_scaling_rows_by_the_root_of_their_weight() -> None:
    data = simulate("mixed", weighted=True)
    root = np.sqrt(data.weights)[:, None]
    scaled = Data("mixed", data.Y * root, data.X * root, data.columns)
    weighted, plain = fit(data.system()), fit(scaled.system())
    assert_params_close(weighted, plain, 1e-8)
    np.testing.assert_allclose(weighted.sigma().values, plain.sigma().values, rtol=1e-8)
    jacobian = 0.5 * 6 * np.log(data.weights).sum()
    np.testing.assert_allclose(weighted.loglik, plain.loglik + jacobian, rtol=1e-11)
