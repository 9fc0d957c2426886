"""Missing responses: kernels against a dense oracle row by row, fits against lavaan, patterns against streamed rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.compression.patterns import _codes, first_pass
from lrgls_dask.errors import BadValues
from lrgls_dask.missing.covariance import gls_covariance, observed_covariance
from lrgls_dask.missing.em import em_round
from lrgls_dask.missing.fit import choose_incomplete, fit_incomplete
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.starts import pairs_never_seen
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.em import fit_em
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.record import Options, Termination
from lrgls_dask.solve.streamed import Streamed
from support.counted import counted_rows
from support.incomplete import TIGHT, dense_information, dense_loglik, estimates, with_holes
from support.reference import MISSING_CASES, load, system_of
from support.systems import Data, dask_rows, simulate

BOTH = pytest.mark.parametrize("most", [None, 0], ids=["patterns", "streamed"])


def problem_of(data: Data, most: int | None = None, *, lam_B: float = 0.0, wrap: Any = np.asarray) -> Incomplete:
    return Incomplete(data.system(wrap).rows, lam_B=lam_B, meter=Meter(), most_patterns=most)


def some_sigma(n_equations: int, rank: int) -> LowRank:
    rng = np.random.default_rng(7)
    return LowRank(0.6 * rng.normal(size=(n_equations, rank)), rng.uniform(0.4, 1.0, size=n_equations))


# ---------------------------------------------------------------------------------- kernels


@BOTH
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
def test_likelihood_as_row_by_row(kind: str, rank: int, weighted: bool, most: int | None) -> None:
    data = with_holes(simulate(kind, n=90, weighted=weighted, unit=30.0), n_patterns=9)
    if weighted:
        data.weights[5:9] = 0.0
    data.X[:, data.columns[0][-1]] += 1e4  # a level that sums must not lose digits to
    problem = problem_of(data, most)
    assert problem.restarts_are_free == (most is None)
    rng = np.random.default_rng(3)
    c = problem.start() + rng.normal(size=problem.design.n_coefficients)
    sigma = some_sigma(6, rank)
    b, in_units = problem.coefficients(c), sigma.rescaled(problem.whitened.y_scale).dense()
    found = problem.latent(c, sigma)
    expected = dense_loglik(data, b, in_units)
    np.testing.assert_allclose(-problem.n_obs * (found.nll + problem.nll_offset), expected, rtol=1e-11)
    assert problem.n_obs + problem.n_empty == 90 - 4 * weighted
    assert problem.n_empty == int(np.isnan(data.Y[data.weights > 0] if weighted else data.Y).all(axis=1).sum()) > 0
    cov = np.linalg.inv(dense_information(data, in_units))
    sd = np.sqrt(cov.diagonal())
    # the inverse beside it has no more digits, of a level of 1e4
    assert np.abs((gls_covariance(problem, sigma) - cov) / np.outer(sd, sd)).max() < 3e-6


@BOTH
def test_gradients_by_finite_differences(most: int | None) -> None:
    problem = problem_of(with_holes(simulate("mixed", n=80, weighted=True)), most)
    rng = np.random.default_rng(4)
    c, sigma = problem.start() + rng.normal(size=problem.design.n_coefficients), some_sigma(6, 2)
    here, h = problem.latent(c, sigma), 1e-5
    by_F, by_log_d = here.gradient_by_sigma(sigma)
    for _ in range(3):
        dc, dF, dz = rng.normal(size=c.shape), rng.normal(size=sigma.F.shape), rng.normal(size=6)
        up, down = (
            problem.latent(c + s * dc, LowRank(sigma.F + s * dF, sigma.d * np.exp(s * dz))).nll for s in (h, -h)
        )
        slope = -here.gradient @ dc / problem.n_obs + np.vdot(by_F, dF) + by_log_d @ dz
        np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-7)


@BOTH
def test_the_start_is_least_squares_where_observed(most: int | None, every_chunk: None) -> None:
    data = with_holes(simulate("mixed", n=120, weighted=True))
    problem = problem_of(data, most, wrap=dask_rows(17))
    b = np.split(problem.coefficients(problem.start()), problem.design.offsets[1:-1])
    for j, (x, y) in enumerate(zip(data.Xs, data.Y.T, strict=True)):
        seen, root = ~np.isnan(y), np.sqrt(data.weights)
        expected, squares = np.linalg.lstsq(root[seen, None] * x[seen], (root * y)[seen], rcond=None)[:2]
        np.testing.assert_allclose(b[j], expected, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(problem.whitened.y_scale[j] ** 2, squares[0] / seen.sum(), rtol=1e-10)


@BOTH
def test_an_em_round_is_the_textbook_one(most: int | None) -> None:
    data = with_holes(simulate("own", n=60))
    problem, sigma = problem_of(data, most), some_sigma(6, 2)
    c = problem.start()
    b = np.split(problem.coefficients(c), problem.design.offsets[1:-1])
    R = np.column_stack([y - x @ own for x, y, own in zip(data.Xs, data.Y.T, b, strict=True)])
    R /= problem.whitened.y_scale
    zz, rz, rr = np.zeros((6, 2, 2)), np.zeros((6, 2)), np.zeros(6)
    for r in R:  # the factors of one row given what it shows
        o = np.flatnonzero(~np.isnan(r))
        F = sigma.F[o]
        gain = F.T @ np.linalg.inv(F @ F.T + np.diag(sigma.d[o]))
        mean, variance = gain @ r[o], np.eye(2) - gain @ F
        zz[o] += np.outer(mean, mean) + variance
        rz[o] += r[o, None] * mean
        rr[o] += r[o] ** 2
    F = np.stack([np.linalg.solve(a, q) for a, q in zip(zz, rz, strict=True)])
    seen = (~np.isnan(R)).sum(axis=0)
    moved, after = em_round(
        problem, LowRankStructure(sigma.rank), Options(), c, sigma, problem.latent(c, sigma), expand=False
    )
    np.testing.assert_allclose(after.F, F, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(after.d, (rr - np.einsum("jk,jk->j", F, rz)) / seen, rtol=1e-9)
    # with X_j'X_j = I in whitened coordinates, least squares of r_j - F_j'm is a step along the score times d_j
    step = problem.latent(c, sigma).gradient * problem.coordinates.expand(sigma.d)
    np.testing.assert_allclose(moved - c, step, rtol=1e-12)


@BOTH
def test_a_product_is_that_of_the_information(most: int | None) -> None:
    problem = problem_of(with_holes(simulate("own", n=70, weighted=True)), most, lam_B=3.0)
    sigma = some_sigma(6, 2)
    A = problem.information(sigma) + np.diag(problem.coordinates.ridge)
    p = np.random.default_rng(5).normal(size=len(A))
    np.testing.assert_allclose(problem.image(p, sigma), A @ p, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_patterns_by_cross_products_are_those_by_qr(
    weighted: bool, monkeypatch: pytest.MonkeyPatch, every_chunk: None
) -> None:
    data = with_holes(simulate("mixed", n=400, weighted=weighted), n_patterns=6)
    if weighted:
        data.weights[::50] = 0.0
    found = []
    for flops in (2e8, 0.0):
        monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", flops)
        problem = problem_of(data, wrap=dask_rows(60))
        at = problem.latent(problem.start() + 1.0, some_sigma(6, 2))
        found.append((at.nll, at.squares, at.gradient, problem.information(some_sigma(6, 2))))
    for by_qr, by_gram in zip(*found, strict=True):
        np.testing.assert_allclose(by_gram, by_qr, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("most", [100, 8, 3], ids=["kept", "too many together", "too many in a block"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_moments_of_equations_from_patterns_are_those_of_rows(
    weighted: bool, most: int, monkeypatch: pytest.MonkeyPatch, every_chunk: None
) -> None:
    data = with_holes(simulate("mixed", n=300, weighted=weighted), n_patterns=12)
    if weighted:
        data.weights[::50] = 0.0
    monkeypatch.setattr("lrgls_dask.compression.compressed.SMALL_FLOPS", 0.0)
    rows = data.system(dask_rows(10)).rows
    found = first_pass(rows, meter=Meter(), most=most)
    assert (found.patterns is None) == (most < 12)
    w = np.ones(300) if data.weights is None else data.weights
    for group, moments in zip(rows.design.groups, found.groups, strict=True):
        for i, j in enumerate(group.equations):
            shown = ~np.isnan(data.Y[:, j]) & (w > 0)
            both, mine = np.column_stack([data.X[:, group.columns], data.Y[:, j]])[shown], w[shown]
            mean = mine @ both / mine.sum()
            away = both - mean
            assert moments.rows[i] == shown.sum()
            np.testing.assert_allclose(moments.weight[i], mine.sum())
            np.testing.assert_allclose(moments.log_weight[i], np.log(mine).sum(), atol=1e-12)
            np.testing.assert_allclose(moments.mean[i], mean, atol=1e-12)
            np.testing.assert_allclose(moments.cross[i], away.T @ (away * mine[:, None]), rtol=1e-10, atol=1e-10)


def test_a_column_that_is_zero_in_some_patterns_counts_in_all() -> None:
    """Patterns are summed about one anchor, which zero in the first of them is none the less."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(120), rng.normal(size=120), np.arange(120) < 30])
    Y = X @ rng.normal(size=(3, 5)) + rng.normal(size=(120, 1)) + rng.normal(size=(120, 5))
    Y[:25, 2] = Y[:15, 1] = np.nan
    Y[rng.random(Y.shape) < 0.05] = np.nan
    fit = LowRankGLS(1, missing="em", algorithm="ols").fit(System.from_arrays(Y, X)).result_
    for j, shown in enumerate(~np.isnan(Y).T):
        wanted, squares, _, _ = np.linalg.lstsq(X[shown], Y[shown, j], rcond=None)
        np.testing.assert_allclose(fit.params.values[3 * j : 3 * j + 3], wanted, atol=1e-10)
        total = np.sum((Y[shown, j] - Y[shown, j].mean()) ** 2)
        assert fit.r2.values[j] == pytest.approx(1 - squares[0] / total, abs=1e-9)


def test_likelihood_at_fixed_coefficients_is_the_likelihood() -> None:
    data = with_holes(simulate("mixed", n=300, weighted=True), n_patterns=5)
    data.Y[:4] = np.nan  # a pattern that shows nothing
    problem = problem_of(data)
    c, sigma = problem.start() + 1.0, some_sigma(6, 2)
    want, got = problem.latent(c, sigma), problem.fixed(c)(sigma)
    for name in ("nll", "squares", "along", "second", "spread", "total", "cells"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-10, atol=1e-10)


def test_patterns_are_told_apart_whatever_their_hash() -> None:
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 2, size=(500, 11), dtype=np.uint8)[rng.integers(0, 40, size=500)]
    codes, first = _codes(packed)
    assert len(first) == len(np.unique(packed, axis=0))
    np.testing.assert_array_equal(packed[first[codes]], packed)


# ---------------------------------------------------------------------------------- lavaan


@BOTH
@pytest.mark.parametrize("algorithm", ["als", "em"])
@pytest.mark.parametrize("structure", ["diagonal", "factor_k1"])
@pytest.mark.parametrize("case", MISSING_CASES)
def test_full_information_maximum_likelihood_as_in_lavaan(
    case: str, structure: str, algorithm: Any, most: int | None
) -> None:
    reference, table = load(case)
    expected = reference["fits"][structure]
    system = system_of(reference["equations"], table)
    problem = Incomplete(system.rows, lam_B=0.0, meter=Meter(), most_patterns=most)
    found = fit_incomplete(problem, LowRankStructure(int(structure[-1] == "1")), replace(TIGHT, algorithm=algorithm))
    b, sigma, loglik = estimates(problem, found)
    design = system.rows.design

    def by_coefficient(values: dict[str, dict[str, float]]) -> np.ndarray:
        pairs = [(e, t) for e, terms in zip(design.equations, design.terms, strict=True) for t in terms]
        return np.array([values[str(e)][str(t)] for e, t in pairs])

    assert problem.n_obs + problem.n_empty == len(table)
    assert problem.n_empty == reference["missing"]["rows_all_missing"]
    assert abs(loglik - expected["loglik_y_given_x"]) < 1e-8
    observed = by_coefficient(expected["se"]["observed"])
    assert np.abs((b - by_coefficient(expected["coefficients"])) / observed).max() < 1e-5
    sd = np.sqrt(np.diag(expected["sigma"]))
    assert np.abs((sigma - np.array(expected["sigma"])) / np.outer(sd, sd)).max() < 1e-5
    at = found.point
    gls = np.sqrt(gls_covariance(problem, at.sigma).diagonal())
    np.testing.assert_allclose(gls, by_coefficient(expected["gls_se_at_mle"]), rtol=1e-6)
    found_cov = observed_covariance(problem, at.c, at.sigma)
    np.testing.assert_allclose(np.sqrt(found_cov.diagonal()), observed, rtol=1e-6)
    scale = np.outer(observed, observed)
    assert np.abs((found_cov - np.array(expected["vcov_coef"]["observed"])) / scale).max() < 1e-5


# ---------------------------------------------------------------------------------- the loops


@pytest.mark.parametrize(("lam_B", "lam_F"), [(0.0, 0.0), (4.0, 0.3)], ids=["plain", "penalised"])
def test_both_algorithms_on_patterns_and_on_rows_agree(lam_B: float, lam_F: float) -> None:
    data = with_holes(simulate("mixed", n=300, K=8, weighted=True))
    options = replace(TIGHT, lam_B=lam_B)
    fits = {}
    for most in (400, 0):
        for algorithm in ("als", "em"):
            problem = problem_of(data, most, lam_B=lam_B)
            found = fit_incomplete(problem, LowRankStructure(2, lam_F=lam_F), replace(options, algorithm=algorithm))
            fits[most, algorithm] = (*estimates(problem, found), found.obj + problem.nll_offset)
    b, sigma, _, obj = fits[400, "als"]
    for other in fits.values():
        assert abs(other[3] - obj) < 1e-10
        np.testing.assert_allclose(other[0], b, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(other[1], sigma, rtol=1e-6, atol=1e-6)


@BOTH
def test_the_objective_of_plain_em_never_rises(most: int | None) -> None:
    data = with_holes(simulate("own", n=300, K=8), n_patterns=20)
    problem = problem_of(data, most)
    options = Options(algorithm="em", rel_tol=1e-9)
    found = fit_incomplete(problem, LowRankStructure(2), replace(options, accelerate=False))
    nll = np.array([row.nll for row in found.trace])
    assert len(nll) > 20
    assert np.diff(nll).max() < 1e-13
    fast = fit_incomplete(problem_of(data, most), LowRankStructure(2), options)
    assert len(fast.trace) < 0.7 * len(nll)
    assert abs(fast.obj - found.obj) < 1e-7


@BOTH
@pytest.mark.parametrize("algorithm", ["als", "em"])
def test_with_nothing_missing_it_is_the_complete_fit(algorithm: Any, most: int | None) -> None:
    data = simulate("mixed", n=200, weighted=True)
    problem = problem_of(data, most)
    b, sigma, loglik = estimates(
        problem, fit_incomplete(problem, LowRankStructure(2), replace(TIGHT, algorithm=algorithm))
    )
    complete = LowRankGLS(2, rel_tol=1e-15, max_sweeps=500).fit(data.system()).result_
    np.testing.assert_allclose(loglik, complete.loglik, rtol=1e-12)
    np.testing.assert_allclose(b, complete.coefficients, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sigma, complete.covariance.dense(), rtol=1e-6, atol=1e-6)
    cov = complete.cov().values
    at = problem.whitened.y_scale
    found = gls_covariance(problem, complete.covariance.rescaled(1 / at))
    np.testing.assert_allclose(found, cov, rtol=1e-8, atol=1e-8 * cov.max())


@pytest.mark.parametrize("most", [400, 0], ids=["patterns", "streamed"])
def test_chunks_do_not_show(most: int, every_chunk: None) -> None:
    data = with_holes(simulate("mixed", n=120, k=1, weighted=True))
    answers = []
    for wrap in (np.asarray, dask_rows(40), dask_rows((50, 1, 69))):
        problem = problem_of(data, most, wrap=wrap)
        answers.append(estimates(problem, fit_incomplete(problem, LowRankStructure(1), TIGHT)))
    for b, sigma, loglik in answers[1:]:
        np.testing.assert_allclose(loglik, answers[0][2], rtol=1e-12)
        np.testing.assert_allclose(b, answers[0][0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(sigma, answers[0][1], rtol=1e-6, atol=1e-7)


def test_rows_that_show_nothing_change_nothing() -> None:
    data = with_holes(simulate("own", n=100, k=1))
    empty = np.isnan(data.Y).all(axis=1)
    assert empty.any()
    answers = []
    for rows in (np.arange(100), np.flatnonzero(~empty)):
        problem = problem_of(data.take(rows))
        answers.append((problem.n_obs, *estimates(problem, fit_incomplete(problem, LowRankStructure(1), TIGHT))))
    assert answers[0][0] == answers[1][0] == 100 - empty.sum()
    np.testing.assert_allclose(answers[0][3], answers[1][3], rtol=1e-13)
    np.testing.assert_allclose(answers[0][1], answers[1][1], rtol=1e-6, atol=1e-7)


def test_patterns_read_once_and_a_streamed_round_is_a_pass(every_chunk: None) -> None:
    data = with_holes(simulate("shared", n=200, K=6, k=1), n_patterns=5)
    system, reads = counted_rows(data, 20)
    meter = Meter()
    problem = Incomplete(system.rows, lam_B=0.0, meter=meter)
    found = fit_incomplete(problem, LowRankStructure(1), TIGHT)
    gls_covariance(problem, found.point.sigma)
    assert problem.restarts_are_free
    assert set(reads.values()) == {1}
    assert meter.passes == 1
    reads.clear()
    streamed = Incomplete(system.rows, lam_B=0.0, meter=(meter := Meter()), most_patterns=2)
    found = fit_incomplete(streamed, LowRankStructure(1), Options(rel_tol=1e-6))
    rounds = [row for row in found.trace if row.step == "em"]
    assert [row.passes for row in rounds] == list(range(3, len(rounds) + 3))
    assert set(reads.values()) == {meter.passes}
    before = meter.passes
    observed_covariance(streamed, found.point.c, found.point.sigma)
    assert meter.passes == before + 2


def test_twenty_passes_are_enough() -> None:
    rng = np.random.default_rng(0)
    n, K, p = 4_000, 30, 3
    X = rng.normal(size=(n, K * p))
    F = rng.normal(size=(K, 3))
    Y = rng.normal(size=(n, 3)) @ F.T + rng.normal(size=(n, K)) * rng.uniform(0.5, 1.0, size=K)
    Y[rng.random(Y.shape) < 0.2] = np.nan
    rows = System.from_arrays(Y, [X[:, p * j : p * j + p] for j in range(K)]).rows
    best = fit_incomplete(
        Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0), LowRankStructure(3), Options(rel_tol=1e-13)
    )
    problem = Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    found = fit_incomplete(problem, LowRankStructure(3), Options(rel_tol=1e-6))
    assert not problem.restarts_are_free
    assert next(row.passes for row in found.trace if row.nll - best.trace[-1].nll < 1e-6) <= 20
    assert problem.meter.passes <= 25
    assert found.termination is Termination.CONVERGED


@BOTH
def test_the_rank_of_the_data_has_the_least_bic(most: int | None) -> None:
    data = with_holes(simulate("shared", n=500, K=9, k=2), n_patterns=30)
    found, table = choose_incomplete(
        problem_of(data, most), tuple(map(LowRankStructure, range(4))), Options(rel_tol=1e-8)
    )
    assert found.point.sigma.rank == 2
    assert [row["rank"] for row in table] == [0, 1, 2, 3]
    assert [row["n_parameters"] - 36 for row in table] == [9, 18, 26, 33]
    assert np.diff([row["loglik"] for row in table]).min() > 0
    row = table[2]
    assert row["bic"] == pytest.approx(-2 * row["loglik"] + np.log(499) * row["n_parameters"])


def test_em_of_a_complete_compressed_system_is_its_als() -> None:
    data = simulate("mixed", n=240)
    rows = data.system().compress().rows
    expected = LowRankGLS(2, rel_tol=1e-15, max_sweeps=500).fit(data.system()).result_
    for accelerate in (True, False):
        problem = InMemory(rows, lam_B=0.0, meter=Meter())
        start = problem.coordinates.flat(problem.whitened.start)
        options = Options(rel_tol=1e-13, accelerate=accelerate)
        found = fit_em(problem, LowRankStructure(2), options, start)
        assert found.termination is Termination.CONVERGED
        assert problem.meter.passes == 0
        np.testing.assert_allclose(found.nll + problem.nll_offset, expected.nll, atol=1e-9)
        sigma = found.point.sigma.rescaled(problem.whitened.y_scale).dense()
        np.testing.assert_allclose(sigma, expected.covariance.dense(), rtol=1e-4, atol=1e-4)
        if not accelerate:
            assert np.diff([row.nll for row in found.trace if row.step == "em"]).max() < 1e-13


# ---------------------------------------------------------------------------------- complete rows only


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_complete_rows_only_are_those_rows(weighted: bool, every_chunk: None) -> None:
    data = with_holes(simulate("mixed", n=200, weighted=weighted), 0.1)
    full = ~np.isnan(data.Y).any(axis=1)
    some = replace(data.system(dask_rows(30)).rows, complete_only=True)
    kept = data.take(np.flatnonzero(full))
    assert 50 < full.sum() < 150
    found, expected = compress_rows(some, meter=Meter()), compress_rows(kept.system().rows, meter=Meter())
    assert found.n_obs == expected.n_obs == full.sum()
    np.testing.assert_allclose(found.root.T @ found.root, expected.root.T @ expected.root, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.head.mean, expected.head.mean, rtol=1e-10)
    c = InMemory(expected, lam_B=0.0, meter=Meter()).whitened.start
    streamed = Streamed(some, lam_B=0.0, meter=Meter())
    residual = streamed.residual_covariance(streamed.coordinates.flat(streamed.whitened.start))
    np.testing.assert_allclose(residual.diagonal(), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.abs(streamed.whitened.start[0]), np.abs(c[0]), rtol=1e-8, atol=1e-8)


def test_no_complete_row_is_said() -> None:
    data = simulate("own", n=40)
    data.Y[np.arange(40), np.arange(40) % 6] = np.nan
    with pytest.raises(ValueError, match=r"no row of positive weight shows every equation\. Use missing='em'"):
        compress_rows(replace(data.system().rows, complete_only=True), meter=Meter())


def test_an_infinity_in_a_complete_row_is_still_named() -> None:
    data = with_holes(simulate("own", n=40), 0.1)
    complete = int(np.flatnonzero(~np.isnan(data.Y).any(axis=1))[3])
    data.Y[complete, 4] = np.inf
    with pytest.raises(BadValues, match=f"equation 'y4': infinite value at row {complete}"):
        compress_rows(replace(data.system().rows, complete_only=True), meter=Meter())


# ---------------------------------------------------------------------------------- what is refused


def test_an_equation_never_observed_is_named() -> None:
    data = simulate("own", n=60)
    data.Y[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"equation 'y2' is observed in no row\. Leave it out"):
        problem_of(data)


@BOTH
def test_an_equation_in_no_more_rows_than_regressors_is_named(most: int | None) -> None:
    data = simulate("own", n=60)
    data.Y[4:, 5] = np.nan
    with pytest.raises(ValueError, match=r"equation 'y5' is observed in 4 rows and has 4 regressors"):
        problem_of(data, most)


def test_collinear_where_observed_is_named() -> None:
    data = simulate("own", n=60)
    column = data.columns[1][1]
    data.Y[:20, 1] = np.nan
    for value, said in ((2.0, "are collinear in the rows that show it"), (0.0, "is zero in every row that shows it")):
        data.X[20:, column] = value
        with pytest.raises(np.linalg.LinAlgError, match=rf"equation 'y1'.* {said} \(rank"):
            problem_of(data)


@pytest.mark.parametrize(("array", "value", "what"), [("X", np.nan, "NaN"), ("X", np.inf, "infinite"),
                                                     ("Y", -np.inf, "infinite")])  # fmt: skip
@BOTH
def test_bad_values_are_named(array: str, value: float, what: str, most: int | None) -> None:
    data = with_holes(simulate("shared", n=60))
    getattr(data, array)[40, 2] = value
    name = "X, regressor 'x2'" if array == "X" else "Y, equation 'y2'"
    with pytest.raises(BadValues, match=f"{name}: {what} value at row 40"):
        problem_of(data, most)


def test_pairs_never_observed_are_named() -> None:
    data = simulate("own", n=100)
    data.Y[:50, 1] = np.nan
    data.Y[50:, 4] = np.nan
    said = pairs_never_seen(problem_of(data), 1)
    assert said.startswith("equations 'y1' and 'y4' are never observed in the same row: the data say nothing")
    data.Y[50:, 5] = np.nan
    assert "in the same row, one of 2 such pairs: the" in pairs_never_seen(problem_of(data), 1)
    assert pairs_never_seen(problem_of(simulate("own", n=100)), 1) == ""


def test_more_loadings_than_pairs_are_refused() -> None:
    data = simulate("own", n=120)
    block = np.arange(120) % 3
    for j in range(6):
        data.Y[block != j // 2, j] = np.nan
    with pytest.raises(ValueError, match="rank 1 has 6 loadings to find, and only 3 pairs"):
        fit_incomplete(problem_of(data), LowRankStructure(1), Options())
