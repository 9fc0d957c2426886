"""Second moments kept as the few rows they are made of, and Newton steps without K x K numbers: the same as dense."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import LinAlgError

from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.newton import minimise
from lrgls_dask.sigma.of_rows import OfRows
from lrgls_dask.sigma.profile import Profile, leading
from lrgls_dask.sigma.quadratic import Applied, Dense, Products
from lrgls_dask.sigma.starts import joreskog_start
from lrgls_dask.sigma.steps import nll_gradient

K, M = 150, 40


def rows(n: int = M, size: int = K, k: int = 3, seed: int = 0) -> OfRows:
    """Of unit variance, with factors in common."""
    rng = np.random.default_rng([seed, n, size, k])
    E = rng.normal(size=(n, k)) @ rng.normal(size=(k, size)) + rng.normal(size=(n, size))
    return OfRows(E / np.linalg.norm(E, axis=0))


def dense(S: OfRows) -> np.ndarray:
    return S.rows.T @ S.rows


def some_sigma(rank: int, size: int = K) -> LowRank:
    rng = np.random.default_rng([7, rank])
    return LowRank(0.5 * rng.normal(size=(size, rank)), rng.uniform(0.2, 0.9, size))


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_the_likelihood_and_its_slopes(rank: int) -> None:
    S, sigma = rows(), some_sigma(rank)
    assert S.shape == (K, K) and len(S) == K
    np.testing.assert_allclose(S.diagonal(), np.ones(K), rtol=1e-14)
    assert sigma.nll(S) == pytest.approx(sigma.nll(dense(S)), rel=1e-13)
    for mine, theirs in zip(nll_gradient(sigma, S), nll_gradient(sigma, dense(S)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, M, M + 3])
def test_leading_pairs(k: int) -> None:
    S = rows()
    values, vectors = leading(S, k)
    expected = np.linalg.eigvalsh(dense(S))[::-1][:k]
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dense(S) @ vectors, vectors * values, atol=1e-10)
    there = min(k, M)
    np.testing.assert_allclose(vectors[:, :there].T @ vectors[:, :there], np.eye(there), atol=1e-8)


@pytest.mark.parametrize("low", [0.3, 1e-7], ids=["ordinary", "a variance near zero"])
def test_the_profile(low: float) -> None:
    S, floor = rows(), np.full(K, 1e-8)
    x = np.log(np.r_[low, np.random.default_rng(1).uniform(0.2, 0.9, K - 1)])
    few, all_pairs = Profile(S, 3, floor, exact=False).at(x), Profile(dense(S), 3, floor).at(x)
    assert few.value == pytest.approx(all_pairs.value, rel=1e-10)
    np.testing.assert_allclose(few.gradient, all_pairs.gradient, atol=1e-8)
    step = np.random.default_rng(2).normal(size=K)
    expected = all_pairs.hessian.image(step)
    np.testing.assert_allclose(few.hessian.image(step), expected, atol=1e-9 * np.abs(expected).max())
    assert joreskog_start(Profile(S, 3, floor)) is None  # S is singular


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_maximum_likelihood(rank: int) -> None:
    S, floor = rows(), np.full(K, 1e-8)
    found, expected = (ml_candidates(each, rank, floor)[0] for each in (S, dense(S)))
    assert found.sigma.nll(dense(S)) == pytest.approx(expected.sigma.nll(dense(S)), abs=1e-9)
    np.testing.assert_allclose(found.sigma.d, expected.sigma.d, rtol=1e-4)
    np.testing.assert_allclose(found.sigma.dense(), expected.sigma.dense(), atol=1e-4)
    again = ml_step(S, rank, floor, start=found.sigma)
    assert again.sigma.nll(S) <= found.sigma.nll(S) + 1e-12


def test_a_row_that_is_not_finite_is_named() -> None:
    S = rows()
    S.rows[3, 5] = np.nan
    with pytest.raises(ValueError, match="S must be finite; row 5 is not"):
        ml_step(S, 1, np.full(K, 1e-8))


# ---------------------------------------------------------------------------------- Newton steps


@pytest.mark.parametrize("high", [0, 4], ids=["ordinary", "communalities near one"])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_joreskogs_approximation_solves_as_its_numbers_do(rank: int, high: int) -> None:
    """Where a factor is all of an equation, what the products leave of the diagonal is negative."""
    rng = np.random.default_rng([rank, high])
    W = rng.normal(size=(K, rank))
    W[:high] *= 20.0
    W = np.linalg.qr(W)[0]
    A = np.eye(K) - W @ W.T
    first, second = np.triu_indices(rank)
    Z = W[:, first] * W[:, second] * np.where(first == second, np.sqrt(0.5), 1.0)
    few, whole = Products(0.5 - np.einsum("iq,iq->i", W, W), Z), Dense(0.5 * A**2)
    assert high == 0 or few.own.min() < 0
    np.testing.assert_allclose(few.diagonal(), whole.diagonal(), atol=1e-14)
    slope, added = rng.uniform(0.5, 1.0, K), rng.uniform(0.01, 0.1, K)
    few, whole = few.changed(slope, added), whole.changed(slope, added)
    free, rhs = np.sort(rng.choice(K, 110, replace=False)), rng.normal(size=110)
    step = rng.normal(size=K)
    np.testing.assert_allclose(few.image(step), whole.image(step), atol=1e-12)
    np.testing.assert_allclose(few.solve(free, rhs), whole.solve(free, rhs), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("convex", [True, False])
def test_what_is_only_applied_is_solved_by_conjugate_gradients(convex: bool) -> None:
    """To a few digits; where it bends down somewhere, to what leads downhill."""
    rng = np.random.default_rng(convex)
    near = Products(rng.uniform(0.5, 1.0, K), 0.3 * rng.normal(size=(K, 4)))
    B = 0.1 * rng.normal(size=(K, K))
    H = np.diag(near.own) + near.columns @ near.columns.T + (0.1 if convex else 1.5) * (B + B.T)
    assert (np.linalg.eigvalsh(H)[0] > 0) == convex
    slope, added = rng.uniform(0.5, 1.0, K), rng.uniform(0.0, 0.1, K)
    applied = Applied(lambda v: H @ v, near, np.ones(K), np.zeros(K)).changed(slope, added)
    numbers = H / np.outer(slope, slope) + np.diag(added)
    step, free, rhs = rng.normal(size=K), np.sort(rng.choice(K, 120, replace=False)), rng.normal(size=120)
    np.testing.assert_allclose(applied.image(step), numbers @ step, atol=1e-10)
    found = applied.solve(free, rhs)
    if convex:
        np.testing.assert_allclose(found, np.linalg.solve(numbers[np.ix_(free, free)], rhs), rtol=0.01, atol=0.01)
    else:
        assert found @ rhs > 0


@pytest.mark.parametrize(("true", "rank"), [(3, 2), (6, 3), (3, 4)])
def test_few_evaluations_lead_to_the_optimum(true: int, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few factors too, where the approximate Hessian took hundreds."""
    S, floor, asked = rows(120, 500, true), np.full(500, 1e-8), []
    at = Profile.at
    monkeypatch.setattr(Profile, "at", lambda self, x: (asked.append(x), at(self, x))[1])
    found = ml_candidates(S, rank, floor)[0].sigma
    assert len(asked) < 120
    point = at(Profile(S, rank, floor, exact=False), np.log(found.d))
    free = found.d > 2e-8
    assert np.abs(point.gradient[free]).max() < 1e-7


def test_numbers_that_are_not_positive_definite_are_refused() -> None:
    with pytest.raises(LinAlgError, match="not positive definite"):
        Dense(np.diag([1.0, -1.0])).solve(np.arange(2), np.ones(2))


# ---------------------------------------------------------------------------------- short and wide


def test_starts_that_meet_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both starts lead to one optimum: from the second the search stops where it meets the first, and is no search of
    its own; the optimum is that of each start by itself."""
    S, floor, visited = rows(120, 700, 4), np.full(700, 1e-8), []
    look = Profile.at
    monkeypatch.setattr(Profile, "at", lambda self, x: visited.append(x) or look(self, x))
    (found,) = ml_candidates(S, 4, floor, tol=1e-4)
    assert (found.n_starts, found.n_agreed) == (2, 2)
    assert len(visited) <= 8
    expected = minimise(Profile(S, 4, floor, exact=False), np.log(np.full(700, 0.5)), 1e-9, 200)
    np.testing.assert_allclose(found.sigma.d, np.exp(expected.x), rtol=1e-3)


def test_far_points_move_to_what_factors_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    S, floor = rows(120, 700, 4), np.full(700, 1e-8)
    profile = Profile(S, 4, floor, exact=False)
    visited, look = [], Profile.at
    monkeypatch.setattr(Profile, "at", lambda self, x: visited.append(x) or look(self, x))
    minimise(profile, np.log(np.full(700, 0.5)), 1e-4, 200)
    first = look(profile, visited[0]).sigma
    left = np.diag(dense(S) - first.F @ first.F.T)
    np.testing.assert_allclose(np.exp(visited[1]), np.maximum(left, np.exp(-2.0) * 0.5), rtol=1e-10)


def test_a_search_among_optima_that_are_not_near_goes_on() -> None:
    S, floor = rows(120, 700, 4), np.full(700, 1e-8)
    profile = Profile(S, 4, floor, exact=False)
    elsewhere = profile.at(np.log(np.full(700, 1e-3)))
    found = minimise(profile, np.log(np.full(700, 0.5)), 1e-6, 200, known=[elsewhere])
    assert found is not elsewhere
    assert np.abs(found.gradient).max() <= 1e-5


@pytest.mark.parametrize("ratio", [1.0, 1e-5], ids=["ordinary", "digits that a difference would lose"])
def test_traces_of_rows(ratio: float) -> None:
    S, sigma = rows(), some_sigma(3)
    sigma = LowRank(sigma.F, ratio * sigma.d)
    expected = np.trace(np.linalg.solve(sigma.dense(), dense(S)))
    assert sigma.trace_solve(S) == pytest.approx(expected, rel=1e-10)
