"""LowRank against dense linear algebra; the matrix-free EM update; Anderson acceleration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrgls_dask.sigma.em import em_products, em_update, flattened, nll_from_products, unflattened
from lrgls_dask.sigma.identified import max_rank
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.ml import ml_step
from lrgls_dask.sigma.steps import penalised
from support.covariances import moments

SHAPES = [(1, 0), (1, 1), (2, 1), (4, 0), (5, 2), (12, 3), (7, 7)]


def low_rank(K: int, k: int, *, smallest: float = 0.2, seed: int = 0) -> LowRank:
    rng = np.random.default_rng([seed, K, k])
    d = rng.uniform(0.2, 1.0, K)
    d[0] = smallest
    return LowRank(rng.standard_normal((K, k)), d)


@pytest.mark.parametrize("smallest", [0.2, 1e-8])
@pytest.mark.parametrize(("K", "k"), SHAPES)
def test_every_product_agrees_with_dense_linear_algebra(K: int, k: int, smallest: float) -> None:
    sigma, S, rng = low_rank(K, k, smallest=smallest), moments(K, 400), np.random.default_rng(1)
    Sigma = sigma.F @ sigma.F.T + np.diag(sigma.d)
    inverse = np.linalg.inv(Sigma)
    scale = np.abs(inverse).max()
    E, B = rng.standard_normal((9, K)), rng.standard_normal((K, 3))
    np.testing.assert_allclose(sigma.dense(), Sigma, rtol=1e-14)
    np.testing.assert_allclose(sigma.variances, np.diag(Sigma), rtol=1e-14)
    np.testing.assert_allclose(sigma.solve(B), inverse @ B, atol=1e-12 * scale * 10)
    np.testing.assert_allclose(sigma.solve_rows(E), E @ inverse, atol=1e-12 * scale * 10)
    np.testing.assert_allclose(sigma.precision(), inverse, atol=1e-12 * scale)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(inverse), rtol=1e-10)
    np.testing.assert_allclose(sigma.precision_loadings, inverse @ sigma.F, atol=1e-12 * scale)
    np.testing.assert_allclose(sigma.matmul(B), Sigma @ B, atol=1e-13 * K)
    assert sigma.logdet == pytest.approx(np.linalg.slogdet(Sigma)[1], abs=1e-11)
    assert sigma.trace_solve(S) == pytest.approx(np.trace(inverse @ S), rel=1e-11)
    dense = 0.5 * (K * np.log(2 * np.pi) + np.linalg.slogdet(Sigma)[1] + np.trace(inverse @ S))
    assert sigma.nll(S) == pytest.approx(dense, rel=1e-11, abs=1e-11)


def test_the_capacitance_factor_is_the_cholesky_factor() -> None:
    sigma = low_rank(9, 3)
    C = np.eye(3) + sigma.F.T @ np.diag(1 / sigma.d) @ sigma.F
    np.testing.assert_allclose(sigma.capacitance_cholesky, np.linalg.cholesky(C).T, atol=1e-13)
    np.testing.assert_allclose(sigma.scaled_loadings, sigma.F / sigma.d[:, None])


@settings(max_examples=60, deadline=None)
@given(
    K=st.integers(1, 9),
    k=st.integers(0, 9),
    smallest=st.sampled_from([1e-11, 1e-9, 1e-6, 1e-2, 1.0]),
    seed=st.integers(0, 99),
)
def test_solve_undoes_matmul_however_small_d_is(K: int, k: int, smallest: float, seed: int) -> None:
    sigma = low_rank(K, min(k, K), smallest=smallest, seed=seed)
    B = np.random.default_rng(seed).standard_normal((K, 2))
    tolerance = 1e-13 * np.linalg.cond(sigma.dense())
    np.testing.assert_allclose(sigma.solve(sigma.matmul(B)), B, atol=max(tolerance, 1e-11))


@pytest.mark.parametrize(("K", "k"), SHAPES)
def test_normalised_loadings_follow_the_stated_normalisation(K: int, k: int) -> None:
    sigma = low_rank(K, k)
    normal = sigma.normalised()
    gram = normal.F.T @ (normal.F / normal.d[:, None])
    np.testing.assert_allclose(normal.dense(), sigma.dense(), atol=1e-13)
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12 * max(1.0, np.abs(gram).max(initial=0.0)))
    assert np.all(np.diff(np.diag(gram)) <= 0.0)
    assert np.all(normal.F[np.abs(normal.F).argmax(axis=0), np.arange(k)] > 0.0)


def test_normalised_does_not_depend_on_the_rotation_it_is_given() -> None:
    sigma = low_rank(8, 3)
    Q = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    rotated = LowRank(sigma.F @ Q, sigma.d).normalised()
    np.testing.assert_allclose(rotated.F, sigma.normalised().F, atol=1e-12)


def test_of_entries_that_tie_for_largest_the_first_is_made_positive() -> None:
    tied = LowRank(np.array([[0.1], [-0.7], [0.7 * (1 + 1e-14)]]), np.ones(3))
    np.testing.assert_allclose(tied.normalised().F[:, 0], [-0.1, 0.7, -0.7])


def test_rescaled_is_a_change_of_units() -> None:
    sigma, scale = low_rank(5, 2), np.array([1e-3, 1.0, -2.0, 1e3, 0.5])
    np.testing.assert_allclose(sigma.rescaled(scale).dense(), np.outer(scale, scale) * sigma.dense(), rtol=1e-12)


@pytest.mark.parametrize(("K", "k", "expected"), [(1, 0, 1), (4, 0, 4), (4, 1, 8), (6, 2, 17), (10, 3, 37)])
def test_parameters_are_loadings_and_variances_less_rotations(K: int, k: int, expected: int) -> None:
    assert low_rank(K, k).n_parameters == expected


def test_max_rank_is_the_ledermann_bound() -> None:
    assert [max_rank(K) for K in (1, 2, 3, 4, 5, 6, 7)] == [0, 0, 1, 1, 2, 3, 3]
    for K in (*range(1, 200), 10_011, 123_456):
        k = max_rank(K)
        assert (K - k) ** 2 >= K + k
        assert (K - k - 1) ** 2 < K + k + 1


@pytest.mark.parametrize(
    ("F", "d", "message"),
    [
        (np.ones((3, 1)), np.ones(2), r"d \(K,\); got F \(3, 1\) and d \(2,\)"),
        (np.ones((1, 2)), np.ones(1), r"k <= K.*got F \(1, 2\)"),
        (np.ones((3, 1)), np.array([1.0, 0.0, 1.0]), "row 1 has d = 0.0"),
        (np.ones((3, 1)), np.array([1.0, 1.0, np.nan]), "row 2 has d = nan"),
        (np.array([[1.0], [np.inf]]), np.ones(2), r"row 1 .* F = \[inf\]"),
    ],
)
def test_low_rank_refuses_what_is_no_covariance(F: np.ndarray, d: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRank(F, d)


@pytest.mark.parametrize(("K", "k"), [(1, 0), (4, 0), (6, 2), (15, 4)])
def test_em_products_give_the_exact_likelihood_and_never_raise_it(K: int, k: int) -> None:
    S, floor = moments(K, 400), np.full(K, 1e-6)
    sigma = low_rank(K, k)
    values = []
    for _ in range(15):
        SB = S @ em_products(sigma)
        values.append(nll_from_products(sigma, SB, np.diag(S)))
        assert values[-1] == pytest.approx(sigma.nll(S), rel=1e-12)
        sigma = em_update(sigma, SB, np.diag(S), floor)
    assert np.all(np.diff(values) <= 1e-13)
    assert values[1] < values[0]


def test_em_update_is_the_dense_regression_on_expected_scores() -> None:
    S, sigma = moments(6, 400), low_rank(6, 2)
    beta = sigma.F.T @ np.linalg.inv(sigma.dense())
    second = np.eye(2) - beta @ sigma.F + beta @ S @ beta.T
    F = S @ beta.T @ np.linalg.inv(second)
    new = em_update(sigma, S @ em_products(sigma), np.diag(S), np.full(6, 1e-8))
    np.testing.assert_allclose(new.F, F, atol=1e-12)
    np.testing.assert_allclose(new.d, np.diag(S - F @ beta @ S), atol=1e-12)


def test_em_keeps_d_on_the_floor_and_still_descends() -> None:
    S, floor = moments(6, 400), np.full(6, 0.9)
    sigma = LowRank(low_rank(6, 2).F, np.full(6, 0.95))
    new = em_update(sigma, S @ em_products(sigma), np.diag(S), floor)
    assert new.d.min() == 0.9
    assert new.d.max() > 0.9
    assert new.nll(S) < sigma.nll(S)


def test_penalised_em_descends_to_the_penalised_optimum() -> None:
    S, floor, lam_F = moments(8, 400), np.full(8, 1e-8), 0.2
    best = penalised(ml_step(S, 2, floor, lam_F=lam_F, restarts=True).sigma, S, lam_F)
    sigma, values = low_rank(8, 2), []
    for _ in range(300):
        values.append(penalised(sigma, S, lam_F))
        sigma = em_update(sigma, S @ em_products(sigma), np.diag(S), floor, lam_F=lam_F)
    assert np.all(np.diff(values) <= 1e-13)
    assert values[-1] == pytest.approx(best, abs=1e-8)


def test_a_maximum_likelihood_solution_is_a_fixed_point_of_em() -> None:
    S, floor = moments(8, 400), np.full(8, 1e-8)
    best = ml_step(S, 2, floor, restarts=True).sigma
    new = em_update(best, S @ em_products(best), np.diag(S), floor)
    np.testing.assert_allclose(new.dense(), best.dense(), atol=1e-12)


def test_flattened_and_back() -> None:
    sigma = low_rank(5, 2)
    back = unflattened(flattened(sigma), 2, np.full(5, 0.3))
    np.testing.assert_allclose(back.F, sigma.F)
    np.testing.assert_allclose(back.d, np.maximum(sigma.d, 0.3), rtol=1e-14)
