"""Restrictions R b = r with responses missing: against the density of every row, maximised over what they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from lrgls_dask import Fit, LowRankGLS
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.missing.fit import fit_incomplete
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.structures import LowRankStructure
from support.fits import assert_params_close, fit
from support.incomplete import TIGHT, dense_information, estimates, with_holes
from support.oracle import Dense
from support.systems import Data, restrictions_of, simulate

ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])
ALGORITHMS = pytest.mark.parametrize("algorithm", ["als", "em"])


@pytest.fixture(scope="module")
def holes() -> Data:
    return with_holes(simulate("own", n=150, K=5, k=1, seed=3, weighted=True), n_patterns=6)


@pytest.fixture(scope="module")
def bound(holes: Data) -> tuple[np.ndarray, np.ndarray]:
    """R and r, each row one and a half standard errors away from what the data say."""
    R, _ = restrictions_of(holes)
    free = fit(holes.system(), 1, missing="em")
    return R, R @ free.params.values + 1.5 * np.sqrt(np.diag(R @ free.cov().values @ R.T))


def negative_loglik(data: Data, R: np.ndarray, r: np.ndarray) -> tuple[Callable[[np.ndarray], float], np.ndarray]:
    """As a function of (what R b = r leaves free of b, one factor, log d); and how b moves with them."""
    particular = np.linalg.lstsq(R, r, rcond=None)[0]
    null = np.linalg.svd(R)[2][len(R) :].T
    K, free = len(data.columns), null.shape[1]
    seen, which = np.unique(~np.isnan(data.Y), axis=0, return_inverse=True)
    edges = np.cumsum([len(c) for c in data.columns])[:-1]

    def value(theta: np.ndarray) -> float:
        F, b, total = theta[free : free + K], np.split(particular + null @ theta[:free], edges), 0.0
        residual = data.Y - np.column_stack([x @ own for x, own in zip(data.Xs, b, strict=True)])
        sigma = np.outer(F, F) + np.diag(np.exp(theta[free + K :]))
        for i, o in enumerate(seen):
            e, w, block = residual[which.ravel() == i][:, o], data.weights[which.ravel() == i], sigma[np.ix_(o, o)]
            constant = o.sum() * (np.log(2 * np.pi) - np.log(w)) + np.linalg.slogdet(block)[1]
            total += 0.5 * float(np.sum(constant + w * np.sum(e.T * np.linalg.solve(block, e.T), axis=0)))
        return total

    return value, null


def at_the_fit(found: Fit, R: np.ndarray, r: np.ndarray, null: np.ndarray) -> np.ndarray:
    free = null.T @ (found.params.values - np.linalg.lstsq(R, r, rcond=None)[0])
    return np.concatenate([free, found.covariance.F[:, 0], np.log(found.covariance.d)])


@pytest.fixture(scope="module")
def optimum(holes: Data, bound: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """b, Sigma and the log-likelihood where nothing but the density of the rows was looked at."""
    R, r = bound
    value, null = negative_loglik(holes, R, r)
    free, K = null.shape[1], len(holes.columns)
    theta = np.concatenate([np.zeros(free), np.full(K, 0.5), np.zeros(K)])
    for _ in range(2):  # the second search begins with a fresh Hessian
        theta = scipy.optimize.minimize(value, theta, method="BFGS", options={"gtol": 1e-4}).x
    F = theta[free : free + K]
    b = np.linalg.lstsq(R, r, rcond=None)[0] + null @ theta[:free]
    return b, np.outer(F, F) + np.diag(np.exp(theta[free + K :])), -value(theta)


@ENGINES
@ALGORITHMS
def test_the_fit_is_the_dense_optimum(
    holes: Data,
    bound: tuple[np.ndarray, np.ndarray],
    optimum: tuple[np.ndarray, np.ndarray, float],
    algorithm: str,
    engine: str,
) -> None:
    R, r = bound
    found = fit(holes.system(), 1, missing="em", algorithm=algorithm, engine=engine, restrictions=(R, r))
    b, sigma, loglik = optimum
    np.testing.assert_allclose(R @ found.params.values, r, atol=1e-10)
    assert found.loglik == pytest.approx(loglik, abs=1e-6)
    assert np.abs((found.params.values - b) / found.std_errors.values).max() < 1e-3
    np.testing.assert_allclose(found.sigma().values, sigma, rtol=2e-3, atol=2e-3)
    assert found.n_parameters == found.n_coefficients - 3 + 10
    assert found.loglik < fit(holes.system(), 1, missing="em").loglik - 2.0


@ENGINES
@pytest.mark.parametrize("lam_B", [0.0, 5.0], ids=["plain", "penalised"])
def test_gls_covariance_is_that_of_the_bordered_system(
    holes: Data, bound: tuple[np.ndarray, np.ndarray], lam_B: float, engine: str
) -> None:
    R, r = bound
    found = fit(holes.system(), 1, missing="em", engine=engine, restrictions=(R, r), lam_B=lam_B)
    information = dense_information(holes, found.sigma().values)
    alone = [
        Dense(y[seen][:, None], [x[seen]], holes.weights[seen])
        for x, y, seen in zip(holes.Xs, holes.Y.T, ~np.isnan(holes.Y).T, strict=True)
    ]
    unit = np.concatenate([each.unit for each in alone])
    np.testing.assert_allclose(found.one_sigma.y_scale, [each.s.item() for each in alone], rtol=1e-9)
    A = information + np.diag(lam_B * unit**2)
    inverse = np.linalg.inv(np.block([[A, R.T], [R, np.zeros((3, 3))]]))[: len(A), : len(A)]
    expected = inverse @ information @ inverse
    se = np.sqrt(expected.diagonal())
    assert np.abs((found.cov().values - expected) / np.outer(se, se)).max() < 1e-6
    assert np.abs(R @ found.cov().values @ R.T).max() < 1e-10


@ENGINES
def test_observed_covariance_by_differences_of_the_density(
    holes: Data, bound: tuple[np.ndarray, np.ndarray], engine: str
) -> None:
    R, r = bound
    found = fit(holes.system(), 1, missing="em", engine=engine, restrictions=(R, r))
    value, null = negative_loglik(holes, R, r)
    theta, h = at_the_fit(found, R, r, null), 1e-3
    steps = h * np.eye(len(theta))
    hessian = np.empty((len(theta),) * 2)
    for i, up in enumerate(steps):
        for j, right in enumerate(steps[: i + 1]):
            corners = [value(theta + a * up + b * right) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            hessian[i, j] = hessian[j, i] = np.dot([1, -1, -1, 1], corners) / (4 * h * h)
    free = null.shape[1]
    expected = null @ np.linalg.inv(hessian)[:free, :free] @ null.T
    se = np.sqrt(expected.diagonal())
    assert np.abs((found.cov("observed").values - expected) / np.outer(se, se)).max() < 1e-4


@ALGORITHMS
@pytest.mark.parametrize("most", [400, 0], ids=["patterns", "streamed"])
@pytest.mark.parametrize("lam_B", [0.0, 4.0], ids=["plain", "penalised"])
def test_with_nothing_missing_it_is_the_complete_restricted_fit(most: int, algorithm: Any, lam_B: float) -> None:
    data = simulate("mixed", n=200, weighted=True)
    R, r = restrictions_of(data)
    system = data.system()
    problem = Incomplete(
        system.rows,
        lam_B=lam_B,
        meter=Meter(),
        most_patterns=most,
        restrictions=read_hypotheses(system.design, (R, r)),
    )
    options = replace(TIGHT, algorithm=algorithm, lam_B=lam_B)
    b, sigma, loglik = estimates(problem, fit_incomplete(problem, LowRankStructure(2), options))
    complete = fit(system, restrictions=(R, r), lam_B=lam_B)
    np.testing.assert_allclose(R @ b, r, atol=1e-10)
    assert loglik == pytest.approx(complete.loglik, rel=1e-8 if lam_B else 1e-12)
    np.testing.assert_allclose(b, complete.params.values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sigma, complete.sigma().values, rtol=1e-6, atol=1e-6)


def test_the_objective_of_plain_rounds_within_restrictions_never_rises(
    holes: Data, bound: tuple[np.ndarray, np.ndarray]
) -> None:
    model = LowRankGLS(1, missing="em", algorithm="em", accelerate=False, restrictions=bound)
    rounds = model.fit(holes.system()).result_.trace
    objective = rounds["obj"][rounds["step"] == "em"]
    assert len(objective) > 10
    assert np.diff(objective).max() < 1e-13


def test_restrictions_that_hold_anyway_change_nothing(holes: Data) -> None:
    free = fit(holes.system(), 1, missing="em")
    R, _ = restrictions_of(holes)
    bound = fit(holes.system(), 1, missing="em", restrictions=(R, R @ free.params.values))
    assert_params_close(bound, free, 1e-6)
    assert bound.loglik == pytest.approx(free.loglik, abs=1e-8)


def test_saved_opened_and_tested(holes: Data, tmp_path: Path) -> None:
    text = ["y0:x0 = y1:x0", "y2:x1 = 0.3"]
    made = fit(holes.system(), 1, missing="em", restrictions=text)
    made.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.cov().values, made.cov().values)
    np.testing.assert_allclose(
        again.cov("observed", system=holes.system()).values, made.cov("observed").values, rtol=1e-9, atol=1e-15
    )
    assert "Restriction: y0:x0 = y1:x0" in again.summary()
    free = fit(holes.system(), 1, missing="em")
    tested = free.lr_test(made)
    assert tested.df == 2
    assert tested.statistic == pytest.approx(2 * (free.loglik - made.loglik))
    by_rank = LowRankGLS("bic", missing="em", restrictions=text).fit(holes.system()).result_
    assert by_rank.selection.loc[by_rank.rank, "bic"] == pytest.approx(by_rank.bic)
