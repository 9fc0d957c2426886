"""The best of several optima where restrictions tie equations: against dense searches from many places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System
from support.reference import load, system_of
from support.systems import dask_rows

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")
GRUNFELD = "case01c_grunfeld_correct5"


@dataclass(frozen=True)
class Tied:
    """Y (N, K), X_j (N, p), and R b = 0 (m, K p).  A : (K, N, t) designs of what the restrictions leave free."""

    Y: np.ndarray
    Xs: list[np.ndarray]
    R: np.ndarray

    @cached_property
    def Z(self) -> np.ndarray:
        return scipy.linalg.null_space(self.R)

    @cached_property
    def A(self) -> np.ndarray:
        p = self.Xs[0].shape[1]
        return np.stack([X @ self.Z[j * p : (j + 1) * p] for j, X in enumerate(self.Xs)])

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """A_i'A_j (K, K, t, t) and A_i'y_j (K, K, t)."""
        return np.einsum("int,jnu->ijtu", self.A, self.A), np.einsum("int,nj->ijt", self.A, self.Y)

    def S(self, theta: np.ndarray) -> np.ndarray:
        E = self.Y - (self.A @ theta).T
        return E.T @ E / len(E)

    def gls(self, precision: np.ndarray) -> np.ndarray:
        normal, rhs = (np.tensordot(precision, moments, axes=2) for moments in self.moments)
        return np.linalg.solve(normal, rhs)

    def loglik(self, sigma: np.ndarray, S: np.ndarray) -> float:
        N, K = self.Y.shape
        value = K * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, S))
        return float(-0.5 * N * value)

    def iterated(self, theta: np.ndarray, full: bool) -> float:
        """Where plain iteration ends: Sigma of the residuals and generalised least squares in turn."""
        for _ in range(5_000):
            S = self.S(theta)
            sigma = S if full else np.diag(np.diag(S))
            before, theta = theta, self.gls(np.linalg.inv(sigma))
            if np.abs(theta - before).max() <= 1e-9 * np.abs(theta).max():
                break
        S = self.S(theta)
        return self.loglik(S if full else np.diag(np.diag(S)), S)

    def plain(self, full: bool) -> float:
        """The same from the least squares of all equations pooled."""
        return self.iterated(self.gls(np.eye(len(self.A))), full)

    def many(self, full: bool, n: int = 12) -> float:
        """The best of plain iterations from random weights, those that all but leave equations out among them."""
        rng, own = np.random.default_rng(0), np.diag(self.S(self.gls(np.eye(len(self.A)))))
        weights = np.exp(3 * rng.standard_normal((n, len(own)))) / own
        return max(self.iterated(self.gls(np.diag(w)), full) for w in weights)

    def many_with_factors(self, rank: int, n: int = 8) -> float:
        """The best of searches over what is free, loadings and log d together, from random places."""
        rng, unit = np.random.default_rng(1), np.sqrt(np.diag(self.S(self.gls(np.eye(len(self.A))))))
        K, t = len(unit), self.A.shape[2]

        def negative(z: np.ndarray, scale: np.ndarray) -> float:
            F, d = z[t : t + K * rank].reshape(K, rank), np.exp(z[t + K * rank :])
            sigma = (F @ F.T + np.diag(np.maximum(d, 1e-8))) * np.outer(unit, unit)
            return -self.loglik(sigma, self.S(z[:t] * scale))

        ends = []
        for _ in range(n):
            theta = self.gls(np.diag(np.exp(3 * rng.standard_normal(K)) / unit**2))
            begin = np.concatenate([np.ones(t), 0.5 * rng.standard_normal(K * rank), np.full(K, -0.7)])
            at, scale = begin, theta
            for _ in range(2):
                at = scipy.optimize.minimize(negative, at, (scale,), "L-BFGS-B", options={"maxfun": 50_000}).x
            ends.append(-negative(at, scale))
        return max(ends)

    def fit(self, rank: Any = "auto", *, chunks: int | None = None, **options: Any) -> Fit:
        system = System.from_arrays(self.Y, self.Xs)
        if chunks is not None:
            wrap = dask_rows(chunks)
            system = System.from_arrays(wrap(self.Y), [wrap(X) for X in self.Xs])
        said: dict[str, Any] = {"restrictions": (self.R, np.zeros(len(self.R)))} | options
        return LowRankGLS(rank, **said).fit(system).result_


def pooling(K: int, columns: list[int], p: int) -> np.ndarray:
    """These columns have the same coefficient in every equation."""
    R = np.zeros((len(columns) * (K - 1), K * p))
    for i, (c, j) in enumerate((c, j) for c in columns for j in range(1, K)):
        R[i, c], R[i, j * p + c] = 1.0, -1.0
    return R


def restrictions(kind: str, K: int, p: int, seed: int) -> np.ndarray:
    if kind == "pooled":
        return pooling(K, list(range(p)), p)
    if kind == "some":
        return pooling(K, list(range(1, p)), p)
    if kind == "sums":
        return np.tile(np.eye(p), K)
    return np.random.default_rng(seed + 10**6).standard_normal((K * p // 2, K * p))


def simulated(seed: int, N: int, K: int, p: int, kind: str = "pooled") -> Tied:
    """Coefficients that differ, whatever the restrictions say: then the likelihood has several optima."""
    g = np.random.default_rng(seed)
    Xs = [np.c_[np.ones(N), g.standard_normal((N, p))] for _ in range(K)]
    Y = np.column_stack([X @ (g.standard_normal(p + 1) * 2) + g.standard_normal(N) for X in Xs])
    return Tied(Y, Xs, restrictions(kind, K, p + 1, seed))


def grunfeld() -> Tied:
    reference, data = load(GRUNFELD)
    names = list(reference["equations"].items())
    Xs = [data.assign(const=1.0)[list(columns)].to_numpy(float) for _, columns in names]
    return Tied(data[[y for y, _ in names]].to_numpy(float), Xs, pooling(5, [0, 1, 2], 3))


# ---------------------------------------------------------------------------------------------- pooled Grunfeld


@pytest.mark.parametrize("options", [{}, {"engine": "stream"}, {"rank": 0, "algorithm": "em", "covariance": "lowrank"}])
@pytest.mark.parametrize("chunks", [None, 7])
def test_the_pooled_panel_is_at_its_best_optimum(options: dict[str, Any], chunks: int | None) -> None:
    """Streamed too: with independent errors the starts take no pass."""
    data = grunfeld()
    found = data.fit(chunks=chunks, **({"covariance": "diagonal"} | options))
    assert found.loglik == pytest.approx(-564.88, abs=5e-3)
    assert found.loglik == pytest.approx(data.many(full=False), abs=1e-4)
    np.testing.assert_allclose(found.params.values[:3], [-23.28, 0.0945, 0.3331], rtol=2e-3)


@pytest.mark.parametrize(("data", "rank"), [(grunfeld(), 1), (simulated(3, 20, 5, 2), 1), (simulated(3, 20, 5, 2), 2)])
def test_factors_of_pooled_equations_are_at_their_best_optimum(data: Tied, rank: int) -> None:
    found = data.fit(rank)
    assert found.termination.name == "CONVERGED"
    assert found.loglik >= data.many_with_factors(rank) - 2e-3


def test_the_pooled_panel_with_any_sigma_is_at_its_best_optimum() -> None:
    data = grunfeld()
    assert data.fit(covariance="full").loglik == pytest.approx(data.many(full=True), abs=1e-4)


def test_frames_and_labelled_arrays_too() -> None:
    reference, data = load(GRUNFELD)
    system = system_of(reference["equations"], data)
    names = list(reference["equations"].items())
    texts = [f"{names[0][0]}:{a} = {y}:{b}" for y, x in names[1:] for a, b in zip(names[0][1], x, strict=True)]
    Y = xr.DataArray(data[[y for y, _ in names]].to_numpy(float), dims=("obs", "equation"))
    labelled = System.from_arrays(Y, [data.assign(const=1.0)[x].to_numpy(float) for _, x in names])
    by_number = (pooling(5, [0, 1, 2], 3), np.zeros(12))
    for rows, said in ((system, texts), (labelled, by_number), (system.compress(), texts)):
        found = LowRankGLS(covariance="diagonal", restrictions=said).fit(rows).result_
        assert found.loglik == pytest.approx(-564.88, abs=5e-3)


def test_with_responses_missing() -> None:
    data = grunfeld()
    holes = data.Y.copy()
    holes[3, 1] = holes[7, 2] = np.nan
    R, r = data.R, np.zeros(len(data.R))
    options: dict[str, Any] = {"covariance": "diagonal", "missing": "em", "restrictions": (R, r)}
    shown = ~np.isnan(holes)
    best = -np.inf
    for weight in np.exp(3 * np.random.default_rng(0).standard_normal((15, 5))) / np.diag(data.S(np.zeros(3))):
        theta, w = np.zeros(3), weight
        for _ in range(300):
            X = np.concatenate([np.sqrt(w[j]) * data.A[j][shown[:, j]] for j in range(5)])
            y = np.concatenate([np.sqrt(w[j]) * holes[shown[:, j], j] for j in range(5)])
            theta = np.linalg.lstsq(X, y, rcond=None)[0]
            squares = np.array([np.mean((holes[:, j] - data.A[j] @ theta)[shown[:, j]] ** 2) for j in range(5)])
            w = 1 / squares
        best = max(best, float(-0.5 * shown.sum(axis=0) @ (np.log(2 * np.pi * squares) + 1)))
    for engine in ("compress", "stream"):
        found = LowRankGLS(engine=engine, **options).fit(System.from_arrays(holes, data.Xs)).result_
        assert found.loglik == pytest.approx(best, abs=1e-3), engine


# ---------------------------------------------------------------------------------------------- never worse


@pytest.mark.parametrize(
    ("shape", "kind", "full", "seed"),
    [
        ((20, 4, 2), "pooled", False, 1),
        ((20, 2, 2), "pooled", True, 10),
        ((20, 4, 2), "pooled", True, 1),
        ((50, 5, 2), "pooled", True, 6),
        ((10, 3, 1), "pooled", True, 140),  # extrapolation leaves the best optimum for another
    ],
)
def test_not_worse_than_plain_iteration(shape: tuple[int, int, int], kind: str, full: bool, seed: int) -> None:
    data = simulated(seed, *shape, kind)
    found = data.fit(covariance="full" if full else "diagonal")
    assert found.termination.name == "CONVERGED"
    assert found.loglik >= data.plain(full) - 1e-5


@pytest.mark.parametrize("kind", ["pooled", "some", "sums", "combinations"])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_best_of_many_searches(kind: str, covariance: str) -> None:
    for seed in range(6):
        data = simulated(seed, 20, 3, 2, kind)
        full = covariance == "full"
        assert data.fit(covariance=covariance).loglik >= max(data.many(full, 8), data.plain(full)) - 1e-4, seed


# ---------------------------------------------------------------------------------------------- what is counted


def test_starts_at_one_point_are_one_start() -> None:
    """As many restrictions as leave nothing free: every start is the same point."""
    data = simulated(0, 20, 2, 1)
    R = np.concatenate([data.R, np.eye(4)[:2]])
    found = Tied(data.Y, data.Xs, R).fit(covariance="diagonal")
    assert (found.n_starts, found.n_agreed) == (1, 1)


def test_starts_that_agree_are_counted() -> None:
    several = grunfeld().fit(covariance="diagonal")
    assert 1 <= several.n_agreed < several.n_starts
    g = np.random.default_rng(0)
    X = g.standard_normal((500, 3))
    agreeing = Tied(X.sum(axis=1)[:, None] + g.standard_normal((500, 4)), [X] * 4, pooling(4, [0, 1, 2], 3))
    found = agreeing.fit(covariance="full")
    assert found.n_agreed == found.n_starts >= 2


def test_restrictions_within_equations_have_one_start() -> None:
    data = simulated(0, 20, 3, 2)
    R = np.zeros((1, 9))
    R[0, 1], R[0, 2] = 1.0, -1.0
    assert Tied(data.Y, data.Xs, R).fit(covariance="full").n_starts == 1
