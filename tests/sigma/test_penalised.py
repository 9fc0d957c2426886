"""Loadings under a quadratic penalty: derivatives, optimality, and never worse than the general-purpose optimiser."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.sigma import ml
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.newton import chart, unchart
from lrgls_dask.sigma.penalised import Penalised, State, minimise_penalised
from lrgls_dask.sigma.steps import nll_gradient, penalised
from support.covariances import floor_of, moments


def some_moments(seed: int) -> tuple[np.ndarray, int, float]:
    """S of a few rows, a rank and a penalty, weak and strong factors, near-singular S among them."""
    rng = np.random.default_rng([24, seed])
    K = int(rng.integers(5, 9))
    n, k = int(rng.integers(K // 2 + 2, 60)), int(rng.integers(1, 3))
    E = rng.normal(size=(n, k)) @ rng.normal(size=(k, K)) * rng.choice([0.3, 1.0, 3.0])
    E += rng.normal(size=(n, K)) * rng.uniform(0.05, 1.0, size=K)
    E /= E.std(axis=0)
    return E.T @ E / n, k, float(rng.choice([0.003, 0.03, 0.3, 3.0]))


@pytest.mark.parametrize("low", [0.5, 0.01], ids=["", "next to the floor"])
def test_derivatives_are_those_of_differences(low: float) -> None:
    S, rng = moments(6, 300), np.random.default_rng(3)
    problem = Penalised(S, 0.3, floor_of(S))
    F, x = rng.normal(size=(6, 2)), np.log(S.diagonal() * rng.uniform(0.3, 0.9, 6))
    x[0] = np.log(low * S[0, 0])

    def at(z: np.ndarray) -> State:
        return State(problem, z[:12].reshape(6, 2), problem.corner + unchart(z[12:]))

    z, h = np.concatenate([F.ravel(), chart(x - problem.corner)]), 1e-5
    steps = h * np.eye(18)
    slopes = np.array([(at(z + e).value - at(z - e).value) / (2 * h) for e in steps])
    np.testing.assert_allclose(at(z).gradient, slopes, atol=1e-7 * np.abs(slopes).max())
    bends = np.array([(at(z + e).gradient - at(z - e).gradient) / (2 * h) for e in steps])
    turn = np.concatenate([np.column_stack([F[:, 1], -F[:, 0]]).ravel(), np.zeros(6)])
    extra = at(z).hessian - bends  # along the one rotation, and nothing else
    along = turn / np.linalg.norm(turn)
    assert along @ extra @ along > 0.1
    np.testing.assert_allclose(extra, (along @ extra @ along) * np.outer(along, along), atol=1e-6 * np.abs(bends).max())


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_stationary_and_never_above_that_of_l_bfgs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    S, k, lam_F = some_moments(seed)
    floor = np.full(len(S), 1e-8)
    found = ml_candidates(S, k, floor, lam_F=lam_F)[0].sigma
    _, along_F, along_x = nll_gradient(found, S)
    held = found.d <= floor * (1 + 1e-6)
    assert np.abs(along_F + lam_F * found.F).max() < 1e-9
    assert np.abs(along_x[~held]).max(initial=0.0) < 1e-9 and np.all(along_x[held] >= 0.0)
    again = ml_step(S, k, floor, lam_F=lam_F, start=found)
    np.testing.assert_allclose(again.sigma.dense(), found.dense(), rtol=0, atol=1e-11)
    value = penalised(found, S, lam_F)
    monkeypatch.setattr(ml, "NEWTON_UP_TO", 0)
    general = ml_candidates(S, k, floor, lam_F=lam_F)[0].sigma
    assert value <= penalised(general, S, lam_F) + 1e-12 * max(1.0, abs(value))


def test_many_equations_go_another_way_to_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    S = moments(12, 200)
    floor = floor_of(S)
    near = ml_step(S, 2, floor, lam_F=0.1).sigma
    monkeypatch.setattr(ml, "NEWTON_UP_TO", 0)
    far = ml_step(S, 2, floor, lam_F=0.1).sigma
    np.testing.assert_allclose(near.dense(), far.dense(), rtol=0, atol=1e-9)


def test_a_factor_that_the_start_lacks_is_found() -> None:
    S = moments(8, 400, factors=3)
    floor = floor_of(S)
    best = ml_candidates(S, 3, floor, lam_F=0.01)[0].sigma
    small = ml_candidates(S, 1, floor, lam_F=0.01)[0].sigma
    found = ml_step(S, 3, floor, lam_F=0.01, start=small)
    assert penalised(found.sigma, S, 0.01) < penalised(small, S, 0.01) - 1e-3
    np.testing.assert_allclose(penalised(found.sigma, S, 0.01), penalised(best, S, 0.01), rtol=1e-9)


def test_a_heywood_case_ends_on_the_floor() -> None:
    S = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.7], [0.9, 0.7, 1.0]])
    floor = np.full(3, 1e-6)
    begin = LowRank(np.full((3, 1), 0.5), np.full(3, 0.5))
    found = minimise_penalised(Penalised(S, 1e-4, floor), begin, tol=1e-12)
    np.testing.assert_allclose(found.d[0], floor[0], rtol=1e-12)
    _, along_F, along_x = nll_gradient(found, S)
    assert along_x[0] > 0.0
    assert np.abs(along_x[1:]).max() < 1e-8
    assert np.abs(along_F + 1e-4 * found.F).max() < 1e-6
