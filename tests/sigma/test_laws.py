"""Laws that every registered kind of Sigma keeps: to register one, and to give an example of it, is to test it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from lrgls_dask.sigma.interface import LOOSE, TIGHT, Sigma
from lrgls_dask.sigma.registry import KINDS, sigma_of, structure_of
from lrgls_dask.sigma.tangents import Tangents
from support.sigma_examples import EXAMPLES, FLOOR, K, moments, value

EACH = pytest.mark.parametrize("kind", list(EXAMPLES))
NOWHERE = np.zeros(K, dtype=bool)


def test_every_registered_kind_has_an_example() -> None:
    assert set(EXAMPLES) == {name for each in KINDS for made in each.values for name in made.kinds}


def answers(call: Callable[[], np.ndarray], kind: str) -> np.ndarray | None:
    """What a value answers, or None where it says by its name that it does not."""
    try:
        return call()
    except ValueError as error:
        assert re.search(rf"covariance='{kind}' has no .*\. .*\.$|no factors", str(error))
        return None


# ---------------------------------------------------------------------------------- values


@EACH
def test_a_value_is_the_matrix_it_stands_for(kind: str) -> None:
    sigma, rng = value(kind), np.random.default_rng(1)
    dense, inverse, S, B = sigma.dense(), np.linalg.inv(sigma.dense()), moments(5), rng.normal(size=(K, 4))
    assert (sigma.kind, sigma.n_equations) == (kind, K)
    np.testing.assert_allclose(sigma.matmul(B), dense @ B, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sigma.solve(sigma.matmul(B)), B, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(sigma.solve_rows(B.T), B.T @ inverse, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(sigma.precision(), inverse, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(inverse), rtol=1e-9)
    np.testing.assert_allclose(sigma.variances, np.diag(dense), rtol=1e-12)
    logdet = np.linalg.slogdet(dense)[1]
    assert sigma.logdet == pytest.approx(logdet, rel=1e-10)
    assert sigma.nll(S) == pytest.approx(0.5 * (K * np.log(2 * np.pi) + logdet + np.trace(inverse @ S)), rel=1e-10)


@EACH
def test_rows_that_show_some_equations_as_their_own_matrices_say(kind: str) -> None:
    sigma, rng = value(kind), np.random.default_rng(6)
    observed = (rng.random((40, K)) < 0.6).astype(float)
    observed[3], observed[5], observed[10:30] = 0.0, 1.0, observed[10]
    residual, count, dense = rng.normal(size=(40, K)) * observed, rng.integers(0, 4, 40).astype(float), sigma.dense()
    rows = sigma.rows(observed)
    given, taken, spread = rows.given(residual, count), np.zeros((40, K, K)), np.zeros((K, K))
    assert not rows.given(residual).spread.any()
    for some, each in rows.taken():
        np.add.at(taken, some, each[:, :, None] * each[:, None, :])
    for i, (r, shown) in enumerate(zip(residual, observed > 0, strict=True)):
        inverse, both = np.zeros((K, K)), np.ix_(shown, shown)
        inverse[both] = np.linalg.inv(dense[both])
        near = {"rtol": 1e-9, "atol": 1e-10}
        np.testing.assert_allclose(given.scaled[i], inverse @ r, **near)
        np.testing.assert_allclose(given.filled[i], np.where(shown, r, dense @ inverse @ r), **near)
        np.testing.assert_allclose((rows.base - taken[i])[both], inverse[both], **near)
        assert given.log_dets[i] == pytest.approx(np.linalg.slogdet(dense[both])[1], abs=1e-10)
        spread += count[i] * np.where(np.outer(~shown, ~shown), dense - dense @ inverse @ dense, 0.0)
    np.testing.assert_allclose(given.spread, spread, rtol=1e-9, atol=1e-10)


@EACH
def test_units_go_through_everything(kind: str) -> None:
    sigma, scale = value(kind), np.random.default_rng(2).uniform(0.1, 9.0, K) * np.resize([1.0, -1.0], K)
    scaled, S = sigma.rescaled(scale), moments(5)
    np.testing.assert_allclose(scaled.dense(), sigma.dense() * np.outer(scale, scale), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(scaled.precision(), sigma.precision() / np.outer(scale, scale), rtol=1e-9, atol=1e-12)
    moved = sigma.nll(S) + np.log(np.abs(scale)).sum()
    assert scaled.nll(S * np.outer(scale, scale)) == pytest.approx(moved, rel=1e-10)
    assert (scaled.kind, scaled.n_parameters, scaled.rank) == (kind, sigma.n_parameters, sigma.rank)


@EACH
def test_its_normalisation_is_the_same_matrix(kind: str) -> None:
    sigma = value(kind)
    normal = sigma.normalised()
    np.testing.assert_allclose(normal.dense(), sigma.dense(), rtol=1e-10, atol=1e-12)
    assert (normal.kind, normal.n_parameters) == (kind, sigma.n_parameters)


@EACH
def test_loadings_and_own_part_make_it_up(kind: str) -> None:
    sigma = value(kind)
    F, own = (answers(call, kind) for call in (sigma.loadings, sigma.own_part))
    assert len(sigma.own_variances()) == (0 if own is None else K)
    if F is not None and own is not None:
        np.testing.assert_allclose(F @ F.T + own, sigma.dense(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(sigma.own_variances(), np.diag(own), rtol=1e-13)
        assert F.shape == (K, sigma.rank) and len(sigma.factor_labels) == sigma.rank
    wide = answers(lambda: sigma.widened().dense(), kind)
    if wide is not None:
        np.testing.assert_allclose(wide, sigma.dense(), rtol=1e-12, atol=1e-13)
        assert sigma.pattern().free.shape == (K, sigma.rank)


@EACH
def test_it_conditions_as_the_normal_distribution_does(kind: str) -> None:
    sigma, rng = value(kind), np.random.default_rng(3)
    shown = np.array([rng.permutation(K) < m for m in (0, 1, 4, 8)])
    errors = np.where(shown, rng.normal(size=(4, K)), 0.0)
    found, dense = sigma.conditional(shown), sigma.dense()
    means, variances, weights = found.means(np.arange(4), errors), found.variances(), found.weights()
    for i, o in enumerate(shown):
        B = dense[np.ix_(~o, o)] @ np.linalg.inv(dense[np.ix_(o, o)])
        np.testing.assert_allclose(means[i, ~o], B @ errors[i, o], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(
            variances[i, ~o], np.diag(dense[np.ix_(~o, ~o)] - B @ dense[np.ix_(o, ~o)]), rtol=1e-9
        )
        np.testing.assert_allclose(weights[i][np.ix_(~o, o)], B, rtol=1e-9, atol=1e-10)
        assert not weights[i][:, ~o].any()
    assert sigma.conditional_numbers > 0


@EACH
@pytest.mark.parametrize("method", ["regression", "bartlett"])
def test_its_scores_are_the_textbook_ones(kind: str, method: str) -> None:
    sigma = value(kind)
    A = answers(lambda: sigma.factor_score_weights(method), kind)
    if A is not None:
        M = np.linalg.inv(sigma.dense() if method == "regression" else sigma.own_part()) @ sigma.loadings()
        if method == "bartlett":
            M = M @ np.linalg.inv(sigma.loadings().T @ M)
        np.testing.assert_allclose(A, M, rtol=1e-8, atol=1e-10)


@EACH
def test_what_is_stored_makes_the_same_value(kind: str) -> None:
    sigma = value(kind)
    stored = sigma.stored()
    assert tuple(stored) == type(sigma).saved
    assert all(array.ndim == len(dims) for array, dims in stored.values())
    again = sigma_of(kind, {name: array for name, (array, _) in stored.items()}.__getitem__)
    assert type(again) is type(sigma) and again.factor_labels == sigma.factor_labels
    np.testing.assert_array_equal(again.dense(), sigma.dense())


@EACH
def test_a_summary_can_say_what_it_is(kind: str) -> None:
    said = value(kind).describe()
    assert said.formula.startswith("Sigma") and said.factors
    assert " = " in said.penalty.format(lam_F=0.5, l1=0.25)
    assert all(isinstance(each, str) for each in value(kind).warnings())


# ---------------------------------------------------------------------------------- tangents


def as_function(tangents: Tangents, sigma: Sigma) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The parameters as one vector, and Sigma as a function of them."""
    n = len(tangents.rows)
    rest = sigma.dense() - tangents.F @ tangents.F.T

    def matrix(theta: np.ndarray) -> np.ndarray:
        F = np.zeros(tangents.F.shape, dtype=theta.dtype)
        F[tangents.rows, tangents.columns] = theta[:n]
        out = rest.astype(theta.dtype)
        out[tangents.own_rows, tangents.own_columns] = theta[n:]
        out[tangents.own_columns, tangents.own_rows] = theta[n:]
        return F @ F.T + out

    at = np.concatenate([tangents.F[tangents.rows, tangents.columns], rest[tangents.own_rows, tangents.own_columns]])
    return at, matrix


@EACH
@pytest.mark.parametrize("held", [NOWHERE, np.arange(K) == 4], ids=["free", "one held"])
def test_tangents_are_derivatives_of_the_matrix(kind: str, held: np.ndarray) -> None:
    sigma, S = value(kind), moments(7)
    try:
        tangents = sigma.tangents(held)
    except ValueError as error:
        assert f"covariance='{kind}' has no " in str(error)
        return
    theta, matrix = as_function(tangents, sigma)
    np.testing.assert_allclose(matrix(theta), sigma.dense(), rtol=1e-12, atol=1e-13)
    steps = 1e-30j * np.eye(len(theta))
    moved = np.array([matrix(theta + step).imag * 1e30 for step in steps]).reshape(-1, K, K)
    np.testing.assert_allclose(tangents.moves(np.eye(len(theta))), moved, rtol=1e-12, atol=1e-12)

    def slope(at: np.ndarray) -> np.ndarray:
        inverse = np.linalg.inv(matrix(at))
        G = inverse @ S @ inverse - inverse
        return np.array([0.5 * np.trace(G @ each) for each in (matrix(at + step).imag * 1e30 for step in steps)]).real

    Q = sigma.precision()
    G = Q @ S @ Q - Q
    np.testing.assert_allclose(tangents.gradient(0.5 * (G + G.T)), slope(theta), rtol=1e-8, atol=1e-10)
    h = 1e-5
    second = np.array([(slope(theta + step) - slope(theta - step)) / (2 * h) for step in h * np.eye(len(theta))])
    found = tangents.curvature(Q, 0.5 * (G + G.T))
    np.testing.assert_allclose(
        found, -second.reshape(found.shape), rtol=1e-5, atol=1e-6 * max(1.0, np.abs(found).max(initial=0))
    )
    assert np.abs(tangents.flat.T @ moved.reshape(len(theta), K * K)).max(initial=0.0) < 1e-12
    if not held.any():
        assert tangents.n_parameters - tangents.flat.shape[1] >= sigma.n_parameters


@EACH
def test_its_normalisation_has_these_derivatives(kind: str) -> None:
    sigma = value(kind).normalised()
    try:
        tangents = sigma.tangents(NOWHERE)
        stated = sigma.normalisation(tangents)
    except ValueError as error:
        assert f"covariance='{kind}' has no " in str(error)
        return
    n, k = len(tangents.rows), sigma.rank
    theta, matrix = as_function(tangents, sigma)
    pairs = [(u, v) for columns in tangents.together for u in columns for v in columns if u < v]

    def products(at: np.ndarray) -> np.ndarray:
        F = np.zeros((K, k), dtype=at.dtype)
        F[tangents.rows, tangents.columns] = at[:n]
        G = F.T @ np.linalg.solve(matrix(at) - F @ F.T, F)
        return np.array([G[u, v] for u, v in pairs])

    np.testing.assert_allclose(products(theta), 0.0, atol=1e-10)
    steps = 1e-30j * np.eye(len(theta))
    moved = np.array([products(theta + step).imag * 1e30 for step in steps]).reshape(len(theta), len(pairs)).T
    np.testing.assert_allclose(stated, moved, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------- structures


@EACH
@pytest.mark.parametrize("tol", [LOOSE, TIGHT])
def test_an_update_never_raises_the_objective(kind: str, tol: float) -> None:
    structure = EXAMPLES[kind]
    for S in (moments(), moments(11)):
        start = structure.start(S, FLOOR)
        best = structure.candidates(S, FLOOR, tol=tol)[0]
        steps = [structure.update(S, FLOOR, at, tol=tol) for at in (start, best.sigma, value(kind))]
        befores = [at.nll(S) + structure.penalty(at) for at in (start, best.sigma, value(kind))]
        for step, before in zip(steps, befores, strict=True):
            assert step.sigma.nll(S) + structure.penalty(step.sigma) <= before + 1e-12
            assert step.sigma.n_parameters <= structure.n_parameters(K)
            assert (step.sigma.kind, step.sigma.rank) == (kind, structure.rank)
        polished = structure.update(S, FLOOR, best.sigma).sigma
        gained = best.sigma.nll(S) + structure.penalty(best.sigma) - polished.nll(S) - structure.penalty(polished)
        assert -1e-12 <= gained <= (1e-6 if tol == LOOSE else 1e-11)


@EACH
def test_the_structure_of_a_value_goes_on_from_it_in_any_units(kind: str) -> None:
    sigma, S, unit = value(kind), moments(), np.linspace(0.2, 4.0, K)
    structure = structure_of(sigma.rescaled(unit), "ml", 0.0, EXAMPLES[kind].l1).in_units(unit)
    assert (structure.rank, structure.n_parameters(K)) == (EXAMPLES[kind].rank, EXAMPLES[kind].n_parameters(K))
    np.testing.assert_allclose(structure.update(S, FLOOR, sigma).sigma.dense(), sigma.dense(), rtol=1e-6, atol=1e-7)
    back = EXAMPLES[kind].in_units(unit).in_units(1.0 / unit)
    np.testing.assert_allclose(back.update(S, FLOOR, sigma).sigma.dense(), sigma.dense(), rtol=1e-6, atol=1e-7)


@EACH
def test_what_em_can_do_is_said_by_the_structure(kind: str) -> None:
    try:
        structure = EXAMPLES[kind].by_rows()
    except ValueError as error:
        assert "does not. Use covariance='lowrank'" in str(error)
        return
    wide = value(kind).widened()
    np.testing.assert_array_equal(structure.value(wide).dense(), value(kind).dense())
    assert not wide.F[~structure.loadings(K).free].any()
