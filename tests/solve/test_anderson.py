"""Anderson acceleration: fewer rounds of EM, a linear map solved, a rise answered by the last accepted image."""

from __future__ import annotations

import numpy as np
import pytest

from lrgls_dask.sigma.em import em_products, em_update, flattened, nll_from_products, unflattened
from lrgls_dask.sigma.ml import ml_step
from lrgls_dask.sigma.pca import pca_step
from lrgls_dask.solve.anderson import Anderson
from support.covariances import moments


def advanced(state: Anderson, point: np.ndarray, image: np.ndarray, value: float) -> tuple[np.ndarray, Anderson]:
    """Where it leads from a point, its image and its value, as the loop uses it."""
    state = state.refused() if state.refuses(value) else state.accepted(point, image, value)
    return state.ahead(), state


def em_rounds(S: np.ndarray, rank: int, gap: float, accelerated: bool) -> tuple[int, list[float]]:
    """Rounds until nll is within `gap` of the optimum, and the values on the way."""
    floor = np.full(S.shape[0], 1e-8)
    best = ml_step(S, rank, floor, restarts=True).sigma.nll(S)
    z, state, values = flattened(pca_step(S, rank, floor).sigma), Anderson(), []
    while len(values) < 300 and not (values and min(values) - best < gap):
        sigma = unflattened(z, rank, floor)
        SB = S @ em_products(sigma)
        values.append(nll_from_products(sigma, SB, np.diag(S)))
        image = flattened(em_update(sigma, SB, np.diag(S), floor))
        z, state = advanced(state, z, image, values[-1]) if accelerated else (image, state)
    return len(values), values


@pytest.mark.parametrize(("K", "rank"), [(12, 1), (30, 3)])
def test_anderson_takes_less_than_half_the_rounds_of_plain_em(K: int, rank: int) -> None:
    S = moments(K, factors=rank)
    plain, _ = em_rounds(S, rank, 1e-7, accelerated=False)
    fast, _ = em_rounds(S, rank, 1e-7, accelerated=True)
    assert plain < 300
    assert fast < 0.5 * plain


def test_anderson_solves_a_linear_map_in_as_many_steps_as_dimensions() -> None:
    A, b = np.diag([0.9, 0.5, -0.3]), np.ones(3)
    solution = np.linalg.solve(np.eye(3) - A, b)
    z, state = np.zeros(3), Anderson()
    for _ in range(5):
        z, state = advanced(state, z, A @ z + b, float(np.linalg.norm(z - solution)))
    np.testing.assert_allclose(z, solution, rtol=1e-6)


def test_anderson_answers_a_rise_with_the_last_accepted_image_and_forgets() -> None:
    _, state = advanced(Anderson(depth=2), np.zeros(2), np.ones(2), 3.0)
    _, state = advanced(state, np.array([2.0, 0.0]), np.array([1.0, 0.5]), 2.0)
    answer, after = advanced(state, np.full(2, 9.0), np.full(2, 8.0), 2.5)
    np.testing.assert_array_equal(answer, [1.0, 0.5])
    assert len(after.points) == 1
    assert after.value == 2.0
    _, nan_state = advanced(state, np.full(2, 9.0), np.full(2, 8.0), float("nan"))
    assert len(nan_state.points) == 1


def test_anderson_keeps_depth_differences_and_stays_put_at_a_fixed_point() -> None:
    state = Anderson(depth=2)
    for j in range(6):
        z, state = advanced(state, np.ones(3), np.ones(3), float(-j))
        np.testing.assert_array_equal(z, np.ones(3))
    assert len(state.points) == 3
