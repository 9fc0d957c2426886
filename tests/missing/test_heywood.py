"""Holes in data whose optimum lies at, or next to, a variance of zero: several optima, all of them hard to reach."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from lrgls_dask import LowRankGLS
from support.reference import load, system_of

FLOOR = 1e-9  # of the search below; the fit's is 1e-8, which costs it less than is asked


def masked(Y: np.ndarray, seed: int) -> np.ndarray:
    """Scattered holes, or equations that end one after the other."""
    rng, Y, (N, K) = np.random.default_rng(seed), Y.copy(), Y.shape
    if seed % 2:
        Y[rng.random(Y.shape) < 0.1] = np.nan
    else:
        for j, end in enumerate(np.sort(rng.integers(N // 3, N, K - 1))[::-1], 1):
            Y[end:, j] = np.nan
    return Y


def best_of_dense_searches(Y: np.ndarray, Xs: list[np.ndarray], rank: int) -> float:
    """The largest log-likelihood that L-BFGS-B over (b, F, log d) finds from random starts; Sigma is a matrix here."""
    (N, K), sd = Y.shape, np.nanstd(Y, axis=0)
    Q = [np.linalg.qr(x)[0] * np.sqrt(N) for x in Xs]
    at = np.cumsum([0, *(x.shape[1] for x in Xs)])
    seen, which = np.unique(~np.isnan(Y), axis=0, return_inverse=True)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        F, d = z[at[-1] : -K].reshape(K, rank), np.exp(z[-K:])
        sigma = F @ F.T + np.diag(d)
        residual = Y / sd - np.column_stack([q @ z[at[j] : at[j + 1]] for j, q in enumerate(Q)])
        total, by_sigma, weighted = 0.0, np.zeros((K, K)), np.zeros((N, K))
        for i, pattern in enumerate(seen):
            rows, o = np.flatnonzero(which.ravel() == i), np.flatnonzero(pattern)
            e, inverse = residual[np.ix_(rows, o)], np.linalg.inv(sigma[np.ix_(o, o)])
            constant = np.linalg.slogdet(sigma[np.ix_(o, o)])[1] + len(o) * np.log(2 * np.pi)
            total += 0.5 * (len(rows) * constant + np.sum(e @ inverse * e))
            by_sigma[np.ix_(o, o)] += 0.5 * (len(rows) * inverse - inverse @ e.T @ e @ inverse)
            weighted[np.ix_(rows, o)] = e @ inverse
        by_b = np.concatenate([-q.T @ own for q, own in zip(Q, weighted.T, strict=True)])
        return total, np.concatenate([by_b, (2 * by_sigma @ F).ravel(), by_sigma.diagonal() * d])

    rng = np.random.default_rng(7)
    bounds = [(None, None)] * (at[-1] + K * rank) + [(np.log(FLOOR), 5.0)] * K
    limits = {"maxiter": 3000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 30}
    ends = []
    for _ in range(6):
        parts = [np.zeros(at[-1]), 0.5 * rng.normal(size=K * rank), np.log(rng.uniform(0.2, 0.8, K))]
        found = scipy.optimize.minimize(
            value, np.concatenate(parts), jac=True, method="L-BFGS-B", bounds=bounds, options=limits
        )
        ends.append(found.fun)
    return -(min(ends) + float(np.nansum(np.log(sd) * ~np.isnan(Y))))


@pytest.mark.filterwarnings("ignore:LowRankGLS")
@pytest.mark.parametrize(
    ("case", "rank", "seed"),
    [
        ("case05g_sim_heywood_K6_N120", 1, 0),
        ("case05g_sim_heywood_K6_N120", 1, 3),
        pytest.param("case05a_sim_k1_K6_N300", 2, 1, marks=pytest.mark.slow),
        pytest.param("case05c_sim_k2_K7_N250_scales", 3, 1, marks=pytest.mark.slow),
    ],
)
def test_the_optimum_is_that_of_many_dense_searches(case: str, rank: int, seed: int) -> None:
    reference, data = load(case)
    names = list(reference["equations"])
    Y = masked(data[names].to_numpy(float), seed)
    holes = data.assign(**dict(zip(names, Y.T, strict=True)))
    got = LowRankGLS(rank, missing="em").fit(system_of(reference["equations"], holes)).result_
    Xs = [holes.assign(const=1.0)[list(columns)].to_numpy(float) for columns in reference["equations"].values()]
    assert got.loglik == pytest.approx(best_of_dense_searches(Y, Xs, rank), abs=1e-5)
    assert got.n_starts > 5
