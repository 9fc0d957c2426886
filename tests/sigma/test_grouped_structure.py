"""Hierarchical factors: lavaan's bifactor fit, optimality, special cases, starts."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.optimize import minimize

from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.grouped_structure import GroupedStructure, grouped_candidates, grouped_step
from lrgls_dask.sigma.groupwise import approached, cycled, leaf_candidates
from lrgls_dask.sigma.ml import ml_candidates
from lrgls_dask.solve.cg import conjugate_gradients
from lrgls_dask.solve.in_memory import InMemory
from support.covariances import floor_of
from support.reference import load, system_of


def simulated(
    *codes: np.ndarray, ranks: tuple[int, ...], n: int = 500, seed: int = 0
) -> tuple[np.ndarray, Blocks, GroupedFactors]:
    """S of unit diagonal, the blocks, and the truth."""
    K, rng = len(codes[0]), np.random.default_rng([seed, n, *ranks])
    blocks = Blocks((np.zeros(K, dtype=np.intp), *codes), ranks)
    truth = GroupedFactors(blocks, rng.uniform(0.3, 1.0, (K, sum(ranks))), rng.uniform(0.3, 0.8, K))
    E = rng.normal(size=(n, K)) @ np.linalg.cholesky(truth.dense()).T
    return np.corrcoef(E.T), blocks, truth


THREES = np.repeat([0, 1, 2], 4)


def test_bifactor_as_in_lavaan() -> None:
    """Coefficients and Sigma jointly, by alternating the Sigma step with generalised least squares."""
    reference, data = load("case08a_sim_bifactor_K9")
    expected = reference["fits"]["bifactor"]
    system = system_of(reference["equations"], data)
    problem = InMemory(compress_rows(system.rows, meter=Meter()), lam_B=0.0, meter=Meter())
    blocks = Blocks((np.zeros(9, dtype=np.intp), np.repeat([0, 1, 2], 3)), (1, 1))
    c, floor = problem.coordinates.flat(problem.whitened.start), np.full(9, 1e-10)
    S = problem.residual_covariance(c)
    sigma = grouped_candidates(S, blocks, floor)[0].sigma
    for _ in range(30):
        step = problem.gls_step(c, sigma)
        diagonal = problem.coordinates.expand(sigma.precision_diagonal)
        found = conjugate_gradients(step.product, c, step.gradient, diagonal, tol=1e-20, max_iterations=500)
        c = found.x
        S = step.finish(c, found.steps)
        sigma = grouped_step(S, blocks, floor, start=sigma).sigma
    loglik = -problem.n_obs * (sigma.nll(S) + problem.nll_offset)
    assert loglik == pytest.approx(expected["loglik_y_given_x"], abs=1e-8)
    y_scale = problem.whitened.y_scale
    target = np.array(expected["sigma"])
    scale = np.sqrt(np.outer(target.diagonal(), target.diagonal()))
    np.testing.assert_allclose(sigma.rescaled(y_scale).dense() / scale, target / scale, atol=1e-7)
    b = [
        group.coefficients(v) for group, v in zip(problem.whitened.groups, problem.coordinates.by_group(c), strict=True)
    ]
    for j, (equation, own) in enumerate(reference["equations"].items()):
        wanted = np.array([expected["coefficients"][equation][name] for name in own])
        errors = np.array([expected["se"]["expected"][equation][name] for name in own])
        np.testing.assert_array_less(np.abs(b[j][:, 0] * y_scale[j] - wanted), 1e-6 * errors)
    n_parameters = sigma.n_parameters + problem.design.n_coefficients
    assert n_parameters == expected["n_free_parameters"]


SHUFFLED = np.random.default_rng(5).permutation(THREES)
CASES = {
    "groups": ((THREES,), (2, 1)),
    "shuffled": ((SHUFFLED,), (1, 1)),
    "levels": ((np.repeat([0, 1], 12), np.repeat(range(6), 4)), (1, 1, 1)),
    "groups only": ((THREES,), (0, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_optimum_is_stationary_and_below_the_truth(case: str) -> None:
    codes, ranks = CASES[case]
    S, blocks, truth = simulated(*codes, ranks=ranks)
    step = grouped_candidates(S, blocks, floor_of(S))[0]
    inverse = np.linalg.inv(step.sigma.dense())
    G = 0.5 * (inverse - inverse @ S @ inverse)
    inside = step.sigma.blocks.compact(2.0 * G @ step.sigma.F)
    assert np.abs(inside).max() <= 1e-8
    assert np.abs(step.sigma.d * np.diag(G)).max() <= 1e-8
    units = 1.0 / np.sqrt(truth.variances)
    assert step.sigma.nll(S) < truth.rescaled(units).nll(S)
    assert step.n_agreed >= 2  # of starts that have nothing in common


def test_the_order_of_equations_does_not_matter() -> None:
    S, blocks, _ = simulated(THREES, ranks=(1, 1))
    order = np.random.default_rng(1).permutation(len(S))
    other = Blocks(tuple(codes[order] for codes in blocks.codes), blocks.ranks)
    one = grouped_step(S, blocks, floor_of(S)).sigma
    two = grouped_step(S[np.ix_(order, order)], other, floor_of(S)).sigma
    np.testing.assert_allclose(two.dense(), one.dense()[np.ix_(order, order)], atol=1e-7)


def test_one_group_of_all_equations_is_a_fit_of_higher_rank() -> None:
    S, _, _ = simulated(THREES, ranks=(2, 1))
    blocks = Blocks((np.zeros(12, dtype=np.intp), np.zeros(12, dtype=np.intp)), (2, 1))
    found, ml = grouped_candidates(S, blocks, floor_of(S))[0].sigma, ml_candidates(S, 3, floor_of(S))[0].sigma
    assert found.nll(S) == pytest.approx(ml.nll(S), abs=1e-10)
    np.testing.assert_allclose(found.dense(), ml.dense(), atol=1e-5)
    assert found.n_parameters == ml.n_parameters


def test_groups_without_factors_are_the_unstructured_fit() -> None:
    S, _, _ = simulated(THREES, ranks=(2, 1))
    blocks = Blocks((np.zeros(12, dtype=np.intp), THREES), (2, 0))
    found, ml = grouped_candidates(S, blocks, floor_of(S))[0].sigma, ml_candidates(S, 2, floor_of(S))[0].sigma
    np.testing.assert_allclose(found.dense(), ml.dense(), atol=1e-6)


def test_groups_alone_are_fits_of_the_groups() -> None:
    S, blocks, _ = simulated(THREES, ranks=(0, 1))
    found = grouped_step(S, blocks, floor_of(S)).sigma.dense()
    for g in range(3):
        rows = np.flatnonzero(g == THREES)
        own = ml_candidates(S[np.ix_(rows, rows)], 1, floor_of(rows))[0].sigma
        np.testing.assert_allclose(found[np.ix_(rows, rows)], own.dense(), atol=1e-7)
    assert np.all(found[THREES[:, None] != THREES[None, :]] == 0)


def test_never_worse_than_the_start() -> None:
    S, blocks, truth = simulated(THREES, ranks=(1, 1))
    best = grouped_step(S, blocks, floor_of(S)).sigma
    again = grouped_step(S, blocks, floor_of(S), start=best).sigma
    assert again.nll(S) <= best.nll(S) + 1e-13
    end = grouped_step(S, blocks, floor_of(S), start=truth)
    assert end.accept_t == 1.0 and end.sigma.nll(S) < truth.nll(S)
    structure = GroupedStructure(blocks)
    assert structure.update(S, floor_of(S), truth).sigma.nll(S) == pytest.approx(best.nll(S), abs=1e-10)
    assert structure.candidates(S, floor_of(S))[0].sigma.nll(S) == pytest.approx(best.nll(S), abs=1e-10)
    assert structure.n_parameters(12) == best.n_parameters and structure.rank == 4
    assert structure.penalty(best) == 0.0
    np.testing.assert_allclose(structure.start(S, floor_of(S)).dense(), np.eye(12))


@pytest.mark.parametrize("case", CASES)
def test_a_cycle_of_groups_never_rises_and_leaves_the_optimum_alone(case: str) -> None:
    codes, ranks = CASES[case]
    S, blocks, truth = simulated(*codes, ranks=ranks)
    floor, own = floor_of(S), blocks.own[0]
    F, P = truth.A[:, own], np.linalg.inv(truth.dense())
    moments = np.eye(ranks[0]) - F.T @ P @ F + F.T @ P @ S @ P @ F
    first = cycled(S, truth, floor)
    np.testing.assert_allclose(first.A[:, own] @ moments, S @ P @ F, atol=1e-11)  # regression on general factors
    assert first.nll(S) < truth.nll(S) - 1e-3
    for fit in (None, leaf_candidates):
        assert approached(S, first, floor, fit).nll(S) <= first.nll(S) + 1e-13
    best = grouped_candidates(S, blocks, floor)[0].sigma
    np.testing.assert_allclose(cycled(S, best, floor).dense(), best.dense(), atol=1e-7)


def searched(S: np.ndarray, blocks: Blocks, floor: np.ndarray, n_starts: int) -> float:
    """The least nll of L-BFGS from random starts, all in dense matrices."""
    K, s = len(S), blocks.n_own
    same = [codes[:, None] == codes[None, :] for codes in blocks.codes]

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        A, d = z[: K * s].reshape(K, s), np.exp(z[K * s :])
        levels = [A[:, own] for own in blocks.own]
        sigma = np.diag(d) + sum(np.where(mask, L @ L.T, 0.0) for mask, L in zip(same, levels, strict=True))
        P = np.linalg.inv(sigma)
        G = 0.5 * (P - P @ S @ P)
        slope = np.column_stack([2.0 * np.where(m, G, 0.0) @ L for m, L in zip(same, levels, strict=True)])
        value = 0.5 * (K * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] + np.trace(P @ S))
        return value, np.concatenate([slope.ravel(), d * G.diagonal()])

    bounds, rng = [(None, None)] * (K * s) + [(x, None) for x in np.log(floor)], np.random.default_rng(9)
    starts = [np.concatenate([0.5 * rng.standard_normal(K * s), np.full(K, -0.7)]) for _ in range(n_starts)]
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13}
    return min(minimize(objective, z, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun for z in starts)


@pytest.mark.parametrize("levels", [1, 2])
def test_factors_that_are_not_in_the_data_cost_neither_the_optimum_nor_its_digits(levels: int) -> None:
    """One factor of all equations, and of half of the finest groups: the others end with a variance on its floor."""
    fine, rng = np.repeat(range(6), 6), np.random.default_rng(4)
    codes = (np.repeat([0, 1], 18), fine)[-levels:]
    E = rng.normal(size=(200, 1)) * rng.uniform(0.3, 0.9, 36) + 0.7 * rng.normal(size=(200, 36))
    E += np.where(fine % 2 == 0, rng.uniform(0.3, 0.8, 36) * rng.normal(size=(200, 6))[:, fine], 0.0)
    S, floor = np.corrcoef(E.T), np.full(36, 1e-8)
    blocks = Blocks((np.zeros(36, dtype=np.intp), *codes), (1,) * (levels + 1))
    sigma = grouped_candidates(S, blocks, floor)[0].sigma
    assert sigma.on_floor(floor).sum() >= 2
    assert sigma.nll(S) <= searched(S, blocks, floor, 4) + 1e-8
    other = S + 1e-3 * (np.eye(36) - S)
    for found, moments in ((sigma, S), (grouped_step(other, blocks, floor, start=sigma).sigma, other)):
        P = np.linalg.inv(found.dense())
        assert np.abs(blocks.compact((P - P @ moments @ P) @ found.F)).max() <= 1e-7


def test_a_variance_may_end_on_its_floor() -> None:
    S, blocks, _ = simulated(THREES, ranks=(1, 1), n=14, seed=3)
    floor = floor_of(S, 0.05)
    sigma = grouped_candidates(S, blocks, floor)[0].sigma
    held = sigma.on_floor(floor)
    assert 0 < held.sum() < 12
    inverse = np.linalg.inv(sigma.dense())
    along = sigma.d * np.diag(inverse - inverse @ S @ inverse)
    assert np.all(along[held] >= -1e-8) and np.all(np.abs(along[~held]) <= 1e-8)


def test_it_beats_factors_that_know_no_groups_on_other_data() -> None:
    """Held-out likelihood on data with groups, against the unstructured fit of any rank up to all its factors."""
    codes = np.repeat(range(4), 5)
    S, blocks, truth = simulated(codes, ranks=(1, 1), n=150)
    units = 1.0 / np.sqrt(truth.variances)
    population = truth.rescaled(units).dense()
    grouped = grouped_candidates(S, blocks, floor_of(S))[0].sigma.nll(population)
    plain = [ml_candidates(S, k, floor_of(S))[0].sigma.nll(population) for k in (1, 2, 3, 4, 5)]
    assert grouped < min(plain)
    assert grouped > truth.rescaled(units).nll(population)  # nothing beats the truth there


def test_inputs_that_do_not_fit_are_refused() -> None:
    S, blocks, _ = simulated(THREES, ranks=(1, 1))
    with pytest.raises(ValueError, match=re.escape("groups are of 12 equations but S is of 5")):
        grouped_step(S[:5, :5], blocks, floor_of(S[:5]))
    other = GroupedFactors(Blocks.single(12, 1), np.zeros((12, 1)), np.ones(12))
    with pytest.raises(ValueError, match=re.escape("the start has (1,) factors from coarse to fine but (1, 1)")):
        grouped_step(S, blocks, floor_of(S), start=other)
    with pytest.raises(ValueError, match=re.escape("S must be finite; row 2")):
        grouped_candidates(np.where(np.arange(12)[:, None] == 2, np.nan, S), blocks, floor_of(S))
