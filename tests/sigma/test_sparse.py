"""Sparse loadings: optimality, maximum likelihood at l1 = 0, the path, recovery of a support, errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.optimize

from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.sparse import (
    SparseFactors,
    SparseStructure,
    kkt_violation,
    orthomax,
    refitted,
    sparse_candidates,
    sparse_path,
    sparse_penalty,
    sparse_step,
)
from support.covariances import factor_slopes, floor_of


def simulated(K: int = 12, k: int = 2, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """S of unit diagonal from loadings with simple structure, and those loadings."""
    rng = np.random.default_rng([seed, K, k, n])
    F = np.zeros((K, k))
    F[np.arange(K), np.arange(K) % k] = rng.uniform(0.5, 0.9, K)
    E = rng.normal(size=(n, k)) @ F.T + rng.normal(size=(n, K)) * rng.uniform(0.6, 0.9, K)
    return np.corrcoef(E.T), F


@pytest.mark.parametrize("l1", [0.003, 0.03, 0.1, 0.3])
@pytest.mark.parametrize(("K", "k", "n"), [(12, 2, 400), (9, 3, 400), (8, 2, 9)])
def test_karush_kuhn_tucker_conditions(K: int, k: int, n: int, l1: float) -> None:
    S, floor = simulated(K, k, n)[0], np.full(K, 1e-3)
    for step in sparse_candidates(S, k, floor, l1=l1):
        along_F, along_x = factor_slopes(step.sigma.F, step.sigma.d, S)
        F, on_floor = step.sigma.F, step.sigma.d <= floor * (1 + 1e-9)
        np.testing.assert_allclose(along_F[F != 0], -l1 * np.sign(F[F != 0]), atol=1e-8)
        assert np.all(np.abs(along_F[F == 0]) <= l1 + 1e-8)
        assert np.all(np.abs(along_x[~on_floor]) <= 1e-8)
        assert np.all(along_x[on_floor] >= -1e-8)
        assert kkt_violation(step.sigma, S, floor, l1) <= 1e-8


def test_a_violated_condition_is_measured() -> None:
    S = simulated()[0]
    floor, sigma = floor_of(S), sparse_step(S, 2, floor_of(S), l1=0.05).sigma
    along_F, _ = factor_slopes(sigma.F, sigma.d, S)
    free = sigma.F != 0
    other = 0.02  # the same point judged by another penalty: off by the difference where F is not zero
    expected = max(0.03, float(np.max(np.abs(along_F[~free]) - other)))
    assert kkt_violation(sigma, S, floor, other) == pytest.approx(expected, rel=1e-6)


def test_without_penalty_it_is_maximum_likelihood_rotated() -> None:
    S = simulated()[0]
    floor, ml = floor_of(S), ml_step(S, 2, floor_of(S)).sigma
    for step in (sparse_step(S, 2, floor, l1=0.0), sparse_candidates(S, 2, floor, l1=0.0)[0]):
        np.testing.assert_allclose(step.sigma.dense(), ml.dense(), atol=1e-9)
    near = sparse_step(S, 2, floor, l1=1e-7).sigma
    np.testing.assert_allclose(near.dense(), ml.dense(), atol=1e-4)


def test_no_other_search_finds_a_lower_objective() -> None:
    """Against a general-purpose optimiser, split into positive and negative parts, from random starts."""
    S, l1, K, k = simulated(7, 2)[0], 0.06, 7, 2
    best = sparse_candidates(S, k, floor_of(S), l1=l1)[0].sigma
    found = best.nll(S) + sparse_penalty(best, l1)

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        plus, minus = z[: K * k].reshape(K, k), z[K * k : 2 * K * k].reshape(K, k)
        sigma = LowRank(plus - minus, np.exp(z[2 * K * k :]))
        along_F, along_x = factor_slopes(sigma.F, sigma.d, S)
        gradient = np.concatenate([(along_F + l1).ravel(), (l1 - along_F).ravel(), along_x])
        return sigma.nll(S) + l1 * float((plus + minus).sum()), gradient

    rng, bounds = np.random.default_rng(0), [(0, None)] * (2 * K * k) + [(np.log(1e-8), None)] * K
    values = []
    for _ in range(10):
        z = np.concatenate([rng.uniform(0, 0.7, 2 * K * k), np.log(rng.uniform(0.2, 0.8, K))])
        options = {"maxiter": 5000, "maxfun": 50000, "ftol": 1e-15, "gtol": 1e-9}
        values.append(
            scipy.optimize.minimize(objective, z, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun
        )
    assert found <= min(values) + 1e-9
    assert min(values) == pytest.approx(found, abs=1e-7)  # and the other search does get there


def test_a_warm_start_is_never_made_worse() -> None:
    S = simulated()[0]
    floor, optimum = floor_of(S), sparse_step(S, 2, floor_of(S), l1=0.05).sigma
    again = sparse_step(S, 2, floor, l1=0.05, start=optimum)
    np.testing.assert_allclose(again.sigma.dense(), optimum.dense(), atol=1e-8)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        start = LowRank(rng.normal(size=(12, 2)), rng.uniform(0.1, 2.0, 12))
        end = sparse_step(S, 2, floor, l1=0.05, start=start).sigma
        assert end.nll(S) + sparse_penalty(end, 0.05) < start.nll(S) + sparse_penalty(start, 0.05)
        assert kkt_violation(end, S, floor, 0.05) <= 1e-8


def test_a_start_with_fewer_factors_is_filled_up() -> None:
    S = simulated()[0]
    structure = SparseStructure(2, 0.05)
    step = structure.update(S, floor_of(S), structure.start(S, floor_of(S)))
    assert step.sigma.rank == 2 and structure.penalty(step.sigma) == 0.0  # all zero is a stationary point
    best = structure.candidates(S, floor_of(S))[0].sigma
    assert structure.penalty(best) == pytest.approx(0.05 * np.abs(best.F).sum())
    assert best.n_parameters < structure.n_parameters(12) == 35


def test_path_ascends_to_no_loadings() -> None:
    S, _ = simulated()
    path = sparse_path(S, 2, floor_of(S), n_obs=400, n_penalties=15, n_coefficients=5)
    assert [p.l1 for p in path] == sorted(p.l1 for p in path) and path[0].l1 == 0.0
    assert path[0].n_loadings == 24 and path[-1].n_loadings == 0
    assert np.all(np.diff([p.nll for p in path]) >= -1e-10)
    assert max(p.violation for p in path) <= 1e-8
    bare = sparse_path(S, 2, floor_of(S), n_obs=400, l1s=[p.l1 for p in path], refit=False)
    for point, plain in zip(path, bare, strict=True):
        np.testing.assert_allclose(point.sigma.dense(), plain.sigma.dense(), atol=1e-7)
        size = np.log(400) * (min(plain.n_loadings, 23) + 12)  # 23 without zeros: one rotation is free
        assert plain.bic == pytest.approx(800 * plain.nll + size)
        assert point.bic - np.log(400) * 5 <= plain.bic + 1e-6  # a refit fits no worse on the same support


def test_each_point_of_the_path_is_an_optimum_of_its_own() -> None:
    S, _ = simulated()
    for point in sparse_path(S, 2, floor_of(S), n_obs=400, l1s=[0.3, 0.02, 0.1]):
        alone = sparse_candidates(S, 2, floor_of(S), l1=point.l1)[0].sigma
        followed = point.nll + sparse_penalty(point.sigma, point.l1)
        assert followed == pytest.approx(alone.nll(S) + sparse_penalty(alone, point.l1), abs=1e-8)


def test_refit_keeps_zeros_and_is_stationary_elsewhere() -> None:
    S = simulated()[0]
    sparse = sparse_step(S, 2, floor_of(S), l1=0.1).sigma
    refit = refitted(sparse, S, floor_of(S))
    np.testing.assert_array_equal(refit.F == 0, sparse.F == 0)
    along_F, along_x = factor_slopes(refit.F, refit.d, S)
    assert np.abs(along_F[refit.F != 0]).max() <= 1e-8 and np.abs(along_x).max() <= 1e-8
    assert refit.nll(S) < sparse.nll(S)


@pytest.mark.parametrize("seed", range(3))
def test_bic_finds_the_support(seed: int) -> None:
    S, F = simulated(15, 3, 5000, seed)
    best = min(sparse_path(S, 3, floor_of(S), n_obs=5000), key=lambda point: point.bic).sigma.F
    overlap = np.abs(best.T @ F)
    order = np.argsort(scipy.optimize.linear_sum_assignment(-overlap)[1])
    hits = np.count_nonzero((best[:, order] != 0) & (F != 0))
    assert 2 * hits / (np.count_nonzero(best) + np.count_nonzero(F)) >= 0.95


def test_the_values_keep_their_zeros() -> None:
    sigma = SparseFactors(np.array([[0.0, 2.0], [0.1, 0.0], [-0.3, -5.0]]), np.ones(3))
    assert sigma.n_parameters == 4 + 3
    normal = sigma.normalised()
    np.testing.assert_array_equal(normal.F, [[-2.0, 0.0], [0.0, -0.1], [5.0, 0.3]])
    scaled = sigma.rescaled(np.array([1.0, 10.0, 2.0]))
    assert isinstance(scaled, SparseFactors) and scaled.n_parameters == 7
    np.testing.assert_allclose(scaled.dense(), sigma.dense() * np.outer([1, 10, 2], [1, 10, 2]))


def test_orthomax_maximises_its_criterion() -> None:
    F = np.random.default_rng(0).normal(size=(10, 3))

    def criterion(A: np.ndarray, gamma: float) -> float:
        return float((A**4).sum() - gamma / 10 * ((A**2).sum(axis=0) ** 2).sum())

    for gamma in (0.0, 1.0):
        best = orthomax(F, gamma)
        np.testing.assert_allclose(best @ best.T, F @ F.T, atol=1e-12)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            for angle in (-0.01, 0.01):
                turn = np.eye(3)
                turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
                assert criterion(best @ turn, gamma) < criterion(best, gamma)


@pytest.mark.parametrize("l1", [0.001, 0.1, 5.0])
def test_fewer_rows_than_equations(l1: float) -> None:
    """A singular S drives variances to the floor, where slopes are as steep as 1 / floor."""
    S, floor = np.corrcoef(np.random.default_rng(0).normal(size=(5, 9)).T), np.full(9, 1e-8)
    steps = sparse_candidates(S, 2, floor, l1=l1)
    assert kkt_violation(steps[0].sigma, S, floor, l1) <= 1e-8
    values = [step.sigma.nll(S) + sparse_penalty(step.sigma, l1) for step in steps]
    assert values == sorted(values)
    nothing = 0.5 * 9 * (np.log(2 * np.pi) + 1)
    assert values[0] <= nothing + 1e-12
    assert (values[0] == pytest.approx(nothing)) == (l1 == 5.0)
    assert np.all(np.diff(values) > 1e-6)  # distinct optima


def test_a_large_system_is_optimal_too() -> None:
    """Above the size where one start must do."""
    S, _ = simulated(210, 3, 600)
    sigma = sparse_candidates(S, 3, floor_of(S), l1=0.1)[0].sigma
    assert kkt_violation(sigma, S, floor_of(S), 0.1) <= 1e-8
    assert 0 < np.count_nonzero(sigma.F) < 630


@pytest.mark.parametrize("l1", [-0.5, np.nan, np.inf])
def test_l1_must_be_a_number_not_negative(l1: float) -> None:
    S = simulated()[0]
    message = re.escape(f"l1 must be a finite number, 0 or more; got {l1}")
    with pytest.raises(ValueError, match=message):
        sparse_step(S, 2, floor_of(S), l1=l1)
    with pytest.raises(ValueError, match=message):
        SparseStructure(2, l1)
    with pytest.raises(ValueError, match=message):
        sparse_path(S, 2, floor_of(S), n_obs=10, l1s=[0.1, l1])


def test_rank_zero_and_ml_agree() -> None:
    S = simulated()[0]
    for l1 in (0.0, 0.2):
        step = sparse_step(S, 0, floor_of(S), l1=l1)
        np.testing.assert_allclose(step.sigma.dense(), ml_candidates(S, 0, floor_of(S))[0].sigma.dense())
