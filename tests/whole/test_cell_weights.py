"""Weights of cells: Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2, against linearmodels, a dense textbook and scaled rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying, TimeVaryingFit
from support.cells import Weighted, dense_gls, dense_loglik, weighted_cells
from support.systems import dask_rows, zarr_rows

linearmodels = pytest.importorskip("linearmodels")

TIGHT: dict[str, Any] = {"rel_tol": 1e-13, "max_sweeps": 500}
DATA = weighted_cells()
GROUPS = np.arange(len(DATA.Y)) // 5
SEGMENTS = np.arange(len(DATA.Y)) // 80


def fitted(system: System, rank: Any = 1, **options: Any) -> Fit:
    return LowRankGLS(rank, **(TIGHT | options)).fit(system).result_


def system_of(data: Weighted, wrap: Callable[[np.ndarray], Any] = np.asarray) -> System:
    return System.from_arrays(wrap(data.Y), wrap(data.X), weights=wrap(data.W))


def by_linearmodels(data: Weighted, **options: Any) -> Any:
    parts = {
        f"y{j}": {"dependent": data.Y[:, j], "exog": data.X, "weights": data.W[:, j]} for j in range(data.n_equations)
    }
    return linearmodels.system.SUR(parts).fit(method="gls", **options)


# ---------------------------------------------------------------------------------------------- linearmodels


@pytest.mark.parametrize("iterate", [False, True])
@pytest.mark.parametrize("cov", ["unadjusted", "robust"])
def test_digits_of_linearmodels(cov: str, iterate: bool) -> None:
    theirs = by_linearmodels(DATA, iterate=iterate, iter_limit=1000, tol=1e-14, cov_type=cov)
    method: dict[str, Any] = {} if iterate else {"algorithm": "fgls"}
    ours = LowRankGLS(covariance="full", **TIGHT, **method).fit(system_of(DATA)).result_
    np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-8)
    errors = ours.std_errors if cov == "unadjusted" else ours.with_cov("robust").std_errors
    np.testing.assert_allclose(errors, theirs.std_errors, rtol=1e-8)
    root = np.sqrt(DATA.W.mean(axis=0))  # theirs is of weights with mean one in each equation
    np.testing.assert_allclose(ours.sigma(), theirs.sigma * np.outer(root, root), rtol=1e-7)
    np.testing.assert_allclose(ours.r2, [theirs.equations[name].rsquared for name in theirs.equation_labels], rtol=1e-8)
    adjusted = [theirs.equations[name].rsquared_adj for name in theirs.equation_labels]
    np.testing.assert_allclose(ours.adj_r2, adjusted, rtol=1e-8)
    np.testing.assert_allclose(ours.mcelroy_r2(), theirs.system_rsquared["mcelroy"], rtol=1e-8)
    np.testing.assert_allclose(ours.residuals(system_of(DATA)), theirs.resids, rtol=1e-6, atol=1e-9)


def test_r2_of_dummies_that_add_up_to_a_constant_and_of_none() -> None:
    """Whether an equation has a constant is seen in the rows before they were weighted."""
    half = (np.arange(len(DATA.Y)) % 2).astype(float)
    for X, centred in ((np.c_[half, 1.0 - half, DATA.X[:, 1]], True), (DATA.X[:, 1:], False)):
        data = Weighted(DATA.Y, X, DATA.W)
        for engine in ("compress", "stream"):
            found = LowRankGLS(0, engine=engine, **TIGHT).fit(system_of(data)).result_
            residual = np.asarray(found.residuals(system_of(data)))
            mean = np.sum(data.W * data.Y, axis=0) / data.W.sum(axis=0) if centred else 0.0
            total = np.sum(data.W * (data.Y - mean) ** 2, axis=0)
            np.testing.assert_allclose(found.r2, 1 - np.sum(data.W * residual**2, axis=0) / total, rtol=1e-9)


# ---------------------------------------------------------------------------------------------- a dense textbook


@pytest.mark.parametrize("options", [{}, {"engine": "stream"}, {"algorithm": "em"}])
def test_maximum_of_the_dense_likelihood(options: dict[str, Any]) -> None:
    found = fitted(system_of(DATA), **options)
    coefficients, cov = dense_gls(np.asarray(found.sigma()), DATA)
    np.testing.assert_allclose(found.loglik, dense_loglik(found, DATA), rtol=1e-12)
    np.testing.assert_allclose(found.params, coefficients, rtol=1e-6)
    np.testing.assert_allclose(found.std_errors, np.sqrt(np.diag(cov)), rtol=1e-8)
    np.testing.assert_allclose(found.score(system_of(DATA)), found.loglik / found.n_obs, rtol=1e-12)
    root = np.sqrt(DATA.W)
    scaled = np.asarray(found.residuals(system_of(DATA))) * root
    covariance = scaled.T @ scaled / len(scaled)  # a maximum fits each equation's own variance
    np.testing.assert_allclose(np.diag(found.sigma()), np.diag(covariance), rtol=1e-5)


def test_responses_far_from_zero_keep_their_digits() -> None:
    near, far = weighted_cells(level=0.0), weighted_cells(level=1e6)
    moved = fitted(system_of(far))
    shift = np.tile([1e6, 0.0, 0.0], 4)
    np.testing.assert_allclose(moved.params - shift, fitted(system_of(near)).params, atol=2e-8)


@pytest.mark.parametrize("options", [{"engine": "stream"}, {"missing": "em"}, {"missing": "em", "engine": "stream"}])
def test_digits_that_sums_of_squares_lose_are_missed_by_name(options: dict[str, Any]) -> None:
    """And the remedy is true."""
    far, near = weighted_cells(level=1e8), weighted_cells(level=0.0)
    if "missing" in options:
        far, near = far.with_holes(), near.with_holes()
    with pytest.raises(ValueError, match=r"equation 'y0': with weights of cells, .*Subtract a number near its mean"):
        fitted(system_of(far), **options)
    found = fitted(system_of(Weighted(far.Y - 1e8, far.X, far.W)), **options)
    np.testing.assert_allclose(found.params, fitted(system_of(near), **options).params, atol=1e-5)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_missing_responses(engine: str) -> None:
    data = DATA.with_holes()
    found = fitted(system_of(data), missing="em", engine=engine)
    np.testing.assert_allclose(found.loglik, dense_loglik(found, data), rtol=1e-12)
    Y, Xs = data.scaled()
    plain = fitted(System.from_arrays(Y, Xs), missing="em", engine=engine)
    np.testing.assert_allclose(found.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(found.std_errors, plain.std_errors, rtol=1e-9)
    np.testing.assert_allclose(found.score(system_of(data)), found.loglik / found.n_obs, rtol=1e-12)


@pytest.mark.parametrize("missing", ["em", "drop"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("wrap", [np.asarray, dask_rows(33)], ids=["numpy", "dask"])
def test_a_weight_of_zero_is_a_missing_response(missing: str, engine: str, wrap: Any) -> None:
    holes = np.random.default_rng(3).random(DATA.W.shape) < 0.05
    holes[7] = True  # a row that shows nothing
    zeros = Weighted(DATA.Y, np.where(holes.all(axis=1)[:, None], np.nan, DATA.X), np.where(holes, 0.0, DATA.W))
    kept = ~holes.all(axis=1)
    gaps = Weighted(np.where(holes, np.nan, DATA.Y), DATA.X, DATA.W).take(kept)
    found, same = (fitted(system_of(d, wrap), missing=missing, engine=engine) for d in (zeros, gaps))
    assert found.n_obs == same.n_obs
    np.testing.assert_allclose(found.params, same.params, rtol=1e-7)
    np.testing.assert_allclose(found.std_errors, same.std_errors, rtol=1e-7)
    np.testing.assert_allclose(found.loglik, same.loglik, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- special cases


def numbers(found: Fit, system: System) -> dict[str, Any]:
    """Everything that a fit says of itself and of its rows."""
    clustered = found.with_cov("cluster", groups=GROUPS)
    said = {kind: found.with_cov(kind).std_errors for kind in ("robust", "hac", "huber-white", "kackar-harville")}
    return {
        **said,
        "cluster": clustered.std_errors,
        "params": found.params,
        "std_errors": found.std_errors,
        "sigma": found.sigma(),
        "loglik": found.loglik,
        "bic": found.bic,
        "r2": found.r2,
        "adj_r2": found.adj_r2,
        "mcelroy": found.mcelroy_r2(),
        "residuals": found.residuals(system),
        "scores": np.abs(found.factor_scores(system)),  # the largest loading is positive, in whatever units
        "observation": found.predict(system, interval=0.9, kind="observation").std_error,
        "given": found.predict_given(system, observed=["y0", "y1"], interval=0.9).std_error,
        "expected": found.predict_given(system, observed=["y0", "y1"]),
        "blocks": found.bootstrap(20, method="blocks", seed=1).std_errors,
    }


def test_equal_columns_are_weights_of_rows() -> None:
    w = DATA.W[:, 0]
    rows = System.from_arrays(DATA.Y, DATA.X, weights=w)
    cells = System.from_arrays(DATA.Y, DATA.X, weights=np.tile(w[:, None], (1, 4)))
    expected, found = (numbers(fitted(system), system) for system in (rows, cells))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("repeated", [False, True])
def test_equal_rows_are_weights_of_equations_and_change_sigma_alone(repeated: bool) -> None:
    v = np.array([0.5, 3.0, 1.0, 0.1])
    plain, weighted = (
        System.from_arrays(DATA.Y, DATA.X, weights=w) for w in (None, np.tile(v, (len(DATA.Y), 1)) if repeated else v)
    )
    expected, found = (numbers(fitted(system), system) for system in (plain, weighted))
    root = np.sqrt(v)
    np.testing.assert_allclose(found.pop("sigma"), expected.pop("sigma") * np.outer(root, root), rtol=1e-8)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-9, err_msg=name)


def test_weights_of_one_change_nothing() -> None:
    plain, ones = (System.from_arrays(DATA.Y, DATA.X, weights=w) for w in (None, np.ones(DATA.Y.shape)))
    expected, found = (numbers(fitted(system), system) for system in (plain, ones))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_of_weights_change_sigma_alone(engine: str, unit: float) -> None:
    """Penalties and floors are free of units."""
    options: dict[str, Any] = {"engine": engine, "lam_F": 0.1}
    one = fitted(system_of(DATA), **options)
    other = fitted(system_of(Weighted(DATA.Y, DATA.X, unit * DATA.W)), **options)
    np.testing.assert_allclose(other.params, one.params, rtol=1e-6)
    np.testing.assert_allclose(other.sigma(), unit * one.sigma(), rtol=1e-5)
    np.testing.assert_allclose(other.loglik, one.loglik, rtol=1e-8)


KINDS: dict[str, dict[str, Any]] = {
    "rank 0": {"rank": 0},
    "fgls": {"algorithm": "fgls"},
    "bic": {"rank": "bic"},
    "cv": {"rank": "cv"},
    "full": {"covariance": "full"},
    "ridge on factors": {"lam_F": 0.1},
    "restrictions": {"restrictions": ["y0:x1 = y1:x1", "y2:x2 = 1"]},
    "streamed": {"engine": "stream"},
    "em": {"algorithm": "em"},
    "streamed em": {"algorithm": "em", "engine": "stream"},
}


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_of_fit_is_that_of_plain_scaled_rows(name: str) -> None:
    options = {"rank": 1, **KINDS[name]} if "covariance" not in KINDS[name] else KINDS[name]
    Y, Xs = DATA.scaled()
    weighted, plain = (
        LowRankGLS(**options, **TIGHT).fit(system).result_ for system in (system_of(DATA), System.from_arrays(Y, Xs))
    )
    np.testing.assert_allclose(weighted.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(weighted.std_errors, plain.std_errors, rtol=1e-9)
    np.testing.assert_allclose(weighted.sigma(), plain.sigma(), rtol=1e-9)
    np.testing.assert_allclose(weighted.loglik, plain.loglik + 0.5 * np.log(DATA.W).sum(), rtol=1e-12)


def test_sigma_that_varies() -> None:
    Y, Xs = DATA.scaled()
    found, plain = (
        LowRankGLS(covariance=TimeVarying(1, SEGMENTS), **TIGHT).fit(system).result_
        for system in (system_of(DATA), System.from_arrays(Y, Xs))
    )
    assert isinstance(found, TimeVaryingFit)
    np.testing.assert_allclose(found.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(found.std_errors, plain.std_errors, rtol=1e-9)
    np.testing.assert_allclose(found.loglik, plain.loglik + 0.5 * np.log(DATA.W).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.score(system_of(DATA), SEGMENTS), found.loglik / found.n_obs, rtol=1e-9)
    assert "Weights: of cells" in found.summary()


# ---------------------------------------------------------------------------------------------- what goes with it


def test_score_of_rows_with_other_weights() -> None:
    weighted, plain = system_of(DATA), System.from_arrays(DATA.Y, DATA.X)
    ones = Weighted(DATA.Y, DATA.X, np.ones(DATA.Y.shape))
    found, of_plain = fitted(weighted), fitted(plain)
    np.testing.assert_allclose(found.score(plain), dense_loglik(found, ones) / len(DATA.Y), rtol=1e-12)
    np.testing.assert_allclose(of_plain.score(weighted), dense_loglik(of_plain, DATA) / len(DATA.Y), rtol=1e-12)


@pytest.mark.parametrize("plain_first", [False, True])
def test_rows_of_weight_one_are_appended_to_weighted_ones(plain_first: bool) -> None:
    early, late = np.arange(100), np.arange(100, 160)
    W = np.where(np.arange(160)[:, None] < 100, DATA.W, 1.0)
    weighted = system_of(DATA.take(early))
    plain = System.from_arrays(DATA.Y[late], DATA.X[late])
    both = plain.append(weighted) if plain_first else weighted.append(plain)
    expected = fitted(system_of(Weighted(DATA.Y, DATA.X, W)))
    found = LowRankGLS(1, **TIGHT).fit(both).result_
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-9)
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-12)
    np.testing.assert_allclose(found.r2, expected.r2, rtol=1e-9)
    np.testing.assert_allclose(found.mcelroy_r2(), expected.mcelroy_r2(), rtol=1e-9)


def test_append_refuses_weights_that_other_equations_share() -> None:
    shared = System.from_arrays(DATA.Y, DATA.X, weights=[[1.0, 1.0, 2.0, 2.0]])
    with pytest.raises(ValueError, match=r"weights of the two systems .* shape \(N, K\)"):
        shared.append(system_of(DATA))
    W = np.tile([1.0, 1.0, 2.0, 2.0], (len(DATA.Y), 1))
    remedy = system_of(Weighted(DATA.Y, DATA.X, W)).append(system_of(DATA))
    assert remedy.n_obs == 2 * len(DATA.Y)


def test_saved_and_opened(tmp_path: Any) -> None:
    found = fitted(system_of(DATA))
    found.to_zarr(tmp_path / "fit")
    opened = Fit.from_zarr(tmp_path / "fit")
    for name in ("params", "std_errors", "r2", "loglik"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(found, name))
    assert opened.mcelroy_r2() == found.mcelroy_r2()
    assert opened.regressors == found.regressors == ("x0", "x1", "x2")
    np.testing.assert_array_equal(opened.predict(DATA.X[:3]), found.predict(DATA.X[:3]))
    assert "Weights: of cells; Sigma is that of weight one" in opened.summary()
    compressed = system_of(DATA).compress()
    compressed.to_zarr(tmp_path / "compressed")
    again = LowRankGLS(1, **TIGHT).fit(type(compressed).from_zarr(tmp_path / "compressed")).result_
    np.testing.assert_array_equal(again.r2, found.r2)


@pytest.mark.parametrize("wrap", [dask_rows((50, 1, 80, 29)), zarr_rows(37)], ids=["dask", "zarr"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_on_a_cluster_and_in_threads(wrap: Any, engine: str, cluster: LocalCluster) -> None:
    expected = fitted(system_of(DATA), engine=engine)
    system = system_of(DATA, wrap)
    with Client(cluster):
        there = fitted(system, engine=engine)
    np.testing.assert_array_equal(fitted(system, engine=engine).params, there.params)
    np.testing.assert_allclose(there.params, expected.params, rtol=1e-9)
    np.testing.assert_allclose(there.loglik, expected.loglik, rtol=1e-12)


def test_refused_for_rows_of_other_weights() -> None:
    found = fitted(system_of(DATA))
    with pytest.raises(ValueError, match="their cells have no weights, the fitted ones"):
        found.cov("robust", system=System.from_arrays(DATA.Y, DATA.X))


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("missing", ["raise", "em"])
def test_the_ridge_refuses_weights_of_cells_and_takes_those_of_equations(engine: str, missing: str) -> None:
    rng = np.random.default_rng(4)
    x = np.column_stack([np.ones(60), rng.normal(size=60)])
    y = 280.0 + x[:, 1:] + rng.normal(size=(60, 3))
    if missing == "em":
        y[:5, 1] = np.nan
    model = LowRankGLS(0, lam_B=2.0, engine=engine, missing=missing)
    with pytest.raises(ValueError, match="weights of rows or of equations"):
        model.fit(System.from_arrays(y, x, weights=rng.uniform(0.5, 2.0, (60, 3))))
    fit = model.fit(System.from_arrays(y, x, weights=np.array([[0.5, 1.0, 2.0]]))).result_
    np.testing.assert_allclose(fit.coefficients[::2], 280.0, atol=1.0)
