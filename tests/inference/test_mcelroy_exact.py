"""McElroy's R2 where an equation has no residuals, or residuals are singular together."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, FitWarning, LowRankGLS, System

N = 240


def drawn(seed: int, K: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    return X @ rng.normal(size=(3, K)) + rng.normal(size=(N, 1)) + rng.normal(size=(N, K)), X


def made(Y: Any, X: Any, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return LowRankGLS(**options).fit(System.from_arrays(Y, X)).result_


def by_hand(Y: np.ndarray, X: np.ndarray, b: np.ndarray) -> float:
    """1 - tr(S^-1 R'R) / tr(S^-1 T) with S = R'R / N, by an explicit inverse."""
    R = Y - X @ b.reshape(Y.shape[1], -1).T
    about = Y - Y.mean(axis=0)
    precision = np.linalg.inv(R.T @ R / len(Y))
    return 1.0 - np.trace(precision @ R.T @ R) / np.trace(precision @ about.T @ about)


@pytest.mark.parametrize("level", [5.0, 0.1, -280.7, 1e8, 0.0])
@pytest.mark.parametrize("options", [{"covariance": "diagonal"}, {"rank": 1}])
@pytest.mark.parametrize("place", [0, 2])
def test_a_response_that_does_not_vary_is_left_out(level: float, options: Any, place: int) -> None:
    Y, X = drawn(int(abs(level)) % 7, 3)
    found = made(np.insert(Y, place, level, axis=1), X, **options)
    others = np.delete(found.coefficients.reshape(4, 3), place, axis=0)
    right = by_hand(Y, X, others.ravel())
    np.testing.assert_allclose(found.mcelroy_r2("residual"), right, rtol=1e-9)
    assert np.flatnonzero(np.isnan(found.r2.values)).tolist() == [place]


@pytest.mark.parametrize("seed", range(4))
def test_one_other_equation_has_its_own_r2(seed: int) -> None:
    Y, X = drawn(seed, 1)
    found = made(np.column_stack([np.full(N, 5.0), Y]), X, covariance="diagonal")
    np.testing.assert_allclose(found.mcelroy_r2("residual"), found.r2.values[1], rtol=1e-9)
    np.testing.assert_allclose(found.mcelroy_r2("reported"), found.r2.values[1], rtol=1e-9)


def test_nothing_varies() -> None:
    found = made(np.full((N, 2), 5.0), drawn(0, 1)[1], covariance="diagonal")
    assert np.isnan(found.mcelroy_r2("residual"))
    assert np.isnan(found.mcelroy_r2("reported"))


def test_an_exact_fit_of_a_response_that_varies_is_one() -> None:
    Y, X = drawn(1, 3)
    Y[:, 1] = X @ [1.0, 2.0, -3.0]
    found = made(Y, X, covariance="diagonal")
    assert found.mcelroy_r2("residual") == 1.0
    np.testing.assert_allclose(found.mcelroy_r2("reported"), 1.0, atol=1e-6)
    np.testing.assert_allclose(found.r2.values[1], 1.0, rtol=1e-12)
    # nearly exact ones tend to it
    near = made(Y + np.outer(1e-5 * np.random.default_rng(2).normal(size=N), [0.0, 1.0, 0.0]), X, covariance="diagonal")
    assert 1.0 - 1e-8 < near.mcelroy_r2("residual") < 1.0


def test_residuals_that_are_singular_together_have_none() -> None:
    Y, X = drawn(2, 3)
    Y[:, 2] = Y[:, 0] + Y[:, 1]
    assert np.isnan(made(Y, X, covariance="diagonal").mcelroy_r2("residual"))
    few = made(Y[:6].repeat(2, axis=1)[:, :5], X[:6], covariance="diagonal")
    assert np.isnan(few.mcelroy_r2("residual"))


@pytest.mark.parametrize("options", [{"covariance": "full"}, {"rank": 1}, {"rank": 1, "lam_B": 3.0}])
def test_elsewhere_it_is_the_definition(options: Any) -> None:
    Y, X = drawn(3, 4)
    found = made(Y, X, **options)
    np.testing.assert_allclose(found.mcelroy_r2("residual"), by_hand(Y, X, found.coefficients), rtol=1e-10)


ONE_STEP = {"algorithm": "ols", "covariance": "full"}


@pytest.mark.parametrize("options", [ONE_STEP, {"rank": 1}, {"covariance": "diagonal"}])
@pytest.mark.parametrize("own", [False, True])
def test_weights_of_cells_that_differ_by_row(options: Any, own: bool) -> None:
    """Means are those of generalised least squares of rows scaled by the roots of their weights, at R'R / N."""
    Y, X = drawn(3, 3)
    rng = np.random.default_rng(4)
    W = rng.uniform(0.2, 3.0, Y.shape)
    Xs = [X if not own else np.column_stack([X, rng.normal(size=N)]) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = LowRankGLS(**options).fit(System.from_arrays(Y, Xs if own else X, weights=W)).result_
    root = np.sqrt(W / W.mean(axis=0))
    b = found.coefficients.reshape(3, -1)
    R = root * (Y - np.column_stack([x @ one for x, one in zip(Xs, b, strict=True)]))
    precision = np.linalg.inv(R.T @ R / N)
    levels = np.einsum("ij,jk->ijk", root, np.eye(3))  # of each row and equation, the constants of all equations
    left = np.einsum("ija,jk,ikb->ab", levels, precision, levels)
    right = np.einsum("ija,jk,ik->a", levels, precision, root * Y)
    T = root * Y - levels @ np.linalg.solve(left, right)
    expected = 1.0 - np.trace(precision @ R.T @ R) / np.trace(precision @ T.T @ T)
    np.testing.assert_allclose(found.mcelroy_r2("residual"), expected, rtol=1e-8)
    np.testing.assert_allclose(found.system_r2("residual").sel(measure="mcelroy"), expected, rtol=1e-8)
