"""Standard errors and tests of any number of coefficients: the same as dense formulas, and nothing of size P x P."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import classical, structured
from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.inverse import Inverse
from lrgls_dask.inference.least_squares import LeastSquaresCovariance
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from support import sigma_examples
from support.oracle import Dense

N, Q = 40, 5
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")


def subsets(K: int, q: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Of q shared columns some for each equation, in an order of its own."""
    rng = np.random.default_rng(seed)
    return tuple(rng.permutation(q)[: int(rng.integers(1, q))] for _ in range(K))


def design_of(columns: tuple[np.ndarray, ...]) -> Design:
    terms = tuple(tuple(f"x{c}" for c in mine) for mine in columns)
    q = 1 + max(int(mine.max()) for mine in columns)
    return Design(tuple(f"y{j}" for j in range(len(columns))), tuple(f"x{c}" for c in range(q)), columns, terms)


def regressors(n: int, q: int) -> np.ndarray:
    return np.column_stack([np.ones(n), np.random.default_rng(1).normal(size=(n, q - 1)) + 0.5])


def x_rows(X: np.ndarray) -> np.ndarray:
    """As a fit keeps them: the mean, and a root of the centred products."""
    mean = X.mean(axis=0)
    return np.vstack([np.sqrt(len(X)) * mean, np.linalg.qr(X - mean, mode="r")])


def restrictions(P: int, m: int = 2) -> Restrictions:
    R = np.random.default_rng(2).normal(size=(m, P))
    R[0] = 0.0
    R[0, [0, P - 1]] = 1.0, -1.0
    return Restrictions(R, np.zeros(m), ("",) * m)


def dense_covariance(X: np.ndarray, columns: Any, sigma: np.ndarray, lam_B: float, R: np.ndarray | None) -> np.ndarray:
    """G X'(Sigma kron I)^-1 X G, every matrix written out; lam_B in the units of the responses."""
    dense = Dense(np.zeros((len(X), len(columns))), [X[:, c] for c in columns])
    A = dense.normal_matrix(sigma)
    unit = np.concatenate([np.where(np.ptp(X[:, c], axis=0) > 0, 1.0, 0.0) * spread(X[:, c]) for c in columns])
    Z = np.eye(len(A)) if R is None else scipy.linalg.null_space(R)
    G = Z @ np.linalg.inv(Z.T @ (A + np.diag(lam_B * unit**2)) @ Z) @ Z.T
    return np.asarray(G @ A @ G)


def spread(X: np.ndarray) -> np.ndarray:
    """About the mean in an equation with a constant, else about zero."""
    has_constant = bool((np.ptp(X, axis=0) == 0).any())
    return np.asarray(X.std(axis=0) if has_constant else np.sqrt(np.mean(X**2, axis=0)))


def check_close(found: np.ndarray, wanted: np.ndarray, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


def combinations(design: Design, seed: int = 0) -> np.ndarray:
    """One of each equation's coefficients, and differences of first ones."""
    rng, R = np.random.default_rng(seed), np.zeros((design.n_equations + 3, design.n_coefficients))
    for j, mine in enumerate(design.spans):
        R[j, mine] = rng.normal(size=mine.stop - mine.start)
    for j in range(3):
        R[-1 - j, [design.offsets[j], design.offsets[j + 1]]] = 1.0, -1.0
    return R


@pytest.fixture(params=["structure", "inverse", "gradients"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How it is found where coefficients are many."""
    monkeypatch.setattr("lrgls_dask.inference.classical.MAX_COEFFICIENTS", 3)
    monkeypatch.setattr("lrgls_dask.inference.classical.has_room_here", lambda *_: request.param == "inverse")
    if request.param == "structure":
        monkeypatch.setattr("lrgls_dask.inference.dual.PAYS", 0)
    else:
        monkeypatch.setattr("lrgls_dask.inference.dual.PAYS", 10**9)
    monkeypatch.setattr("lrgls_dask.inference.by_solving.AT_ONCE", 2500)  # several batches
    monkeypatch.setattr("lrgls_dask.solve.orthonormal.AT_ONCE", 1000)  # one or two designs at a time
    return str(request.param)


@pytest.mark.parametrize("kind", sorted(sigma_examples.EXAMPLES))
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("lam_B", [0.0, 7.0])
@pytest.mark.parametrize("regression", ["subsets", "own"])
def test_every_covariance_is_the_dense_one(
    kind: str, restricted: bool, lam_B: float, regression: str, way: str
) -> None:
    sigma: Sigma = sigma_examples.value(kind)
    K = sigma.n_equations
    columns = subsets(K, Q)
    if regression == "own":
        edges = np.cumsum([0, *(1 + np.arange(K) % 3)])
        columns = tuple(np.arange(a, b) for a, b in pairwise(edges))
    design, X = design_of(columns), regressors(N, 1 + max(int(c.max()) for c in columns))
    made = restrictions(design.n_coefficients) if restricted else None
    cov = CoefficientCovariance(design, x_rows(X), sigma, N, np.ones(K), lam_B, made)
    wanted = dense_covariance(X, columns, sigma.dense(), lam_B, None if made is None else made.matrix)
    check_close(cov.variances, wanted.diagonal())
    for j in (0, K - 1):
        check_close(cov.block(j), wanted[design.spans[j], design.spans[j]])
    R = combinations(design)
    check_close(cov.of_combinations(R).dense(), R @ wanted @ R.T)


@pytest.mark.parametrize("kind", ["lowrank", "diagonal", "grouped", "full"])
@pytest.mark.parametrize("regression", ["subsets", "shared"])
def test_least_squares_of_equations_together(kind: str, regression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(X'X)^-1 X'(Sigma kron I) X (X'X)^-1, whichever way."""
    sigma: Sigma = sigma_examples.value(kind)
    K = sigma.n_equations
    columns = subsets(K, Q) if regression == "subsets" else (np.arange(Q),) * K
    design, X = design_of(columns), regressors(N, Q)
    blocks = scipy.linalg.block_diag(*(np.linalg.pinv(X[:, c]) for c in columns))
    wanted = blocks @ np.kron(sigma.dense(), np.eye(N)) @ blocks.T
    R = combinations(design)
    for pays in (0, 10**9):
        monkeypatch.setattr("lrgls_dask.inference.dual.PAYS", pays)
        cov = LeastSquaresCovariance(design, x_rows(X), sigma, N, np.ones(K), 0.0)
        check_close(cov.full, wanted)
        check_close(cov.variances, wanted.diagonal())
        check_close(cov.of_combinations(R).dense(), R @ wanted @ R.T)


@pytest.mark.parametrize("often", [2, 32])
@pytest.mark.parametrize("kind", ["shared", "subsets"])
def test_quadratic_forms_need_no_matrix_of_combinations(kind: str, often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "OFTEN", often)
    rng, K = np.random.default_rng(3), 36
    columns = subsets(K, Q) if kind == "subsets" else (np.arange(Q),) * K
    design, X = design_of(columns), regressors(N, Q)
    sigma = LowRank(rng.normal(size=(K, 1)), rng.uniform(0.2, 2.0, K))
    cov = CoefficientCovariance(design, x_rows(X), sigma, N, rng.uniform(0.5, 2.0, K), 0.0)
    V = dense_covariance(X, columns, sigma.dense(), 0.0, None)
    first = np.zeros((K, design.n_coefficients))
    first[np.arange(K), design.offsets[:-1]] = rng.uniform(0.5, 2.0, K)
    against = first[1:] - first[:1]
    two = np.vstack([first, np.roll(first, 1, axis=1)[design.sizes > 1]])
    sums = first[:-1] + 0.5 * first[1:]
    calls = []
    monkeypatch.setattr(structured, "_quadratic", lambda *_: calls.append(1))
    for R in (first, against, two, sums[::2]):
        gap = rng.normal(size=len(R))
        check_close(cov.of_combinations(R).quadratic(gap), gap @ np.linalg.solve(R @ V @ R.T, gap))
    assert not calls


def test_a_singular_covariance_of_combinations_says_its_rank() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 200))
    R = np.eye(200)[:150]
    flat = structured.FormedCov(design_of((np.arange(200),)), rows.T @ rows)
    with pytest.raises(np.linalg.LinAlgError, match="of the 150 restricted combinations has rank 3"):
        flat.of_combinations(R).quadratic(np.ones(150))


def test_heywood_cases_keep_their_digits() -> None:
    rng, K = np.random.default_rng(4), 40
    columns = subsets(K, Q)
    design, X = design_of(columns), regressors(N, Q)
    d = np.where(np.arange(K) < 2, 1e-8, 1.0)
    sigma = LowRank(rng.normal(size=(K, 2)), d)
    made = CoefficientCovariance(design, x_rows(X), sigma, N, np.ones(K), 0.0)
    wanted = dense_covariance(X, columns, sigma.dense(), 0.0, None)
    np.testing.assert_allclose(made.variances, wanted.diagonal(), rtol=1e-6)


def test_an_inverse_takes_the_memory_of_its_matrix() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(700, 600))
    matrix = half.T @ half
    wanted = np.linalg.inv(matrix)
    tracemalloc.start()
    found = Inverse.of(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check_close(found.values, wanted)
    assert np.shares_memory(found.values, matrix)
    assert peak < 8 * 600**2
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        Inverse.of(-np.eye(3))


# ---------------------------------------------------------------------------------------------- fits


def wide_fit(K: int, q: int, columns: Any = None, *, n: int = 60, **options: Any) -> Fit:
    rng = np.random.default_rng(5)
    X = regressors(n, q)
    Y = rng.normal(size=(n, 2)) @ rng.normal(size=(2, K)) + rng.normal(size=(n, K)) + X @ rng.normal(size=(q, K))
    given: dict[str, Any] = {}
    if columns is not None:
        incidence = np.zeros((q, K), dtype=bool)
        for j, mine in enumerate(columns):
            incidence[mine, j] = True
        given["incidence"] = incidence
    return LowRankGLS(2, **({"algorithm": "fgls"} | options)).fit(System.from_arrays(Y, X, **given)).result_


@pytest.fixture(scope="module")
def many() -> Fit:
    """More than 20,000 coefficients of subsets of shared regressors."""
    return wide_fit(1_060, 24, [np.sort(np.random.default_rng(j).permutation(24)[:20]) for j in range(1_060)])


def peak_of(action: Any) -> int:
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_fit_of_very_many_coefficients_says_all_it_says_of_few(many: Fit) -> None:
    P = many.n_coefficients
    assert P == 21_200
    found = replace(many)
    asked = [
        lambda: found.std_errors,
        lambda: found.summary(),
        lambda: found.conf_int(),
        lambda: found.cov(equation=many.equations[7]),
        lambda: found.predict(many.system, interval=0.9),
        lambda: found.wald_test(f"*:{many.regressors[0]} = 0"),
    ]
    for action in asked:
        assert peak_of(action) < P * P * 8 / 10
    block = found.cov(equation=many.equations[7]).values
    mine = many.design.spans[7]
    check_close(np.sqrt(block.diagonal()), found.std_errors.values[mine])


def test_errors_of_very_many_coefficients_are_those_of_least_squares_within_bounds(many: Fit) -> None:
    """GLS is at least as precise as least squares at the same Sigma, and no more than with the others' errors known."""
    X, sigma = many.system.rows.x[0].array, many.covariance
    errors = many.std_errors.values
    for j in (0, 500, 1_059):
        inverse = np.linalg.inv(X[:, many.design.columns[j]].T @ X[:, many.design.columns[j]])
        mine = errors[many.design.spans[j]] ** 2
        assert np.all(mine <= sigma.variances[j] * inverse.diagonal() * (1 + 1e-9))
        assert np.all(mine >= inverse.diagonal() / sigma.precision_diagonal[j] * (1 - 1e-9))


@pytest.mark.parametrize("algorithm", ["fgls", "ols"])
def test_one_coefficient_of_every_equation(algorithm: str) -> None:
    made = wide_fit(1_500, 4, algorithm=algorithm)
    P, name = made.n_coefficients, made.regressors[1]
    tests: dict[str, Any] = {}
    for text in (f"*:{name} = 0", f"*:{name} = {made.equations[0]}:{name}"):
        assert peak_of(lambda text=text: tests.update({text: made.wald_test(text)})) < P * P * 8 / 10
    x = made.system.rows.x[0].array
    of = np.linalg.inv(x.T @ x)[1, 1]
    b, sigma = made.params.values.reshape(-1, 4)[:, 1], made.covariance
    wanted = b @ np.linalg.solve(sigma.dense(), b) / of
    first, second = tests.values()
    np.testing.assert_allclose(first.statistic, wanted, rtol=1e-8)
    assert (first.df, second.df) == (1_500, 1_499)
    R = np.hstack([-np.ones((1_499, 1)), np.eye(1_499)])
    gap = R @ b
    np.testing.assert_allclose(second.statistic, gap @ np.linalg.solve(R @ sigma.dense() @ R.T, gap) / of, rtol=1e-8)
    f = made.wald_test(f"*:{name} = 0", use_f=True)
    np.testing.assert_allclose(f.statistic, wanted / 1_500, rtol=1e-8)
    assert f.pvalue == pytest.approx(scipy.stats.f.sf(f.statistic, 1_500, made.df_resid))


def test_blocks_of_equations_are_found_without_a_covariance_of_all(monkeypatch):
    columns = tuple(np.arange(3 * j, 3 * j + 3) for j in range(7))
    X, sigma = regressors(N, 21), LowRank(np.random.default_rng(4).normal(size=(7, 2)), np.linspace(0.5, 1.5, 7))
    cov = CoefficientCovariance(design_of(columns), x_rows(X), sigma, N, np.ones(7), 0.0)
    R = combinations(cov.design)
    wanted = [cov.full, cov.of_combinations(R).dense()]
    monkeypatch.setattr(classical, "ALONE", 0)
    monkeypatch.setattr(classical, "AT_HAND", 0)
    found = replace(cov)
    for ask in (lambda: found.block(2), lambda: found.variances[6:9], lambda: found.block_of_all(2)):
        mine, full = ask(), wanted[0][6:9, 6:9]
        check_close(mine, full if mine.ndim == 2 else full.diagonal())
    check_close(found.of_combinations(R).dense(), wanted[1])
    assert "full" not in vars(found)


def test_products_are_summed_stretch_by_stretch(monkeypatch):
    rng = np.random.default_rng(5)
    columns = tuple(rng.permutation(4)[:3] for _ in range(30))
    X, sigma = regressors(N, 4), LowRank(rng.normal(size=(30, 1)), np.linspace(0.5, 1.5, 30))
    cov = CoefficientCovariance(design_of(columns), x_rows(X), sigma, N, np.ones(30), 0.0)
    assert cov._structured is not None
    monkeypatch.setattr(structured, "AT_ONCE", 0)  # a row at a time
    check_close(replace(cov).variances, cov.variances)
