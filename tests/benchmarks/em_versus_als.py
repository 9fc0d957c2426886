"""EM with a dense Sigma against ours: how time and memory grow with K, iterations to a tolerance, the same optimum.

The dense one is the textbook: Sigma = F F' + diag(d) formed and inverted in every round. `algebra` is the part of a
round that depends on Sigma alone; `round` the whole of one over few rows, where K^3 shows; both against K, with the
exponents of a power law by least squares of logarithms, over all sizes and over the three largest. One thread, so that
the cost of waking others does not blur them. `converge` runs the dense EM, ours plain and accelerated, and ALS on the
same data, from each one's own start, to their last digits: a count is of the first round, or sweep, whose change of the
nll per row is below a tolerance relative to the nll, or that is within 1e-8 of the least nll of all.
`strong` is the same question where the factors explain nearly everything: errors of the equations' own are `own` times
as large as those of the factors. How many fits by EM converged, how far below ALS they ended, and in how many rounds.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from harness import Case, Report, Session, main, median, timed
from threadpoolctl import threadpool_limits

from lrgls_dask import Fit, LowRankGLS, System, Termination
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.em import em_products, em_update, nll_from_products
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.em import fit_em
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.streamed import Streamed

FULL: dict[str, Any] = {
    "n_equations": [50, 100, 200, 400, 800, 1_600],
    "grow": {"n_obs": 200, "n_regressors": 2, "rank": 5},
    "converge": {"n_obs": 2_000, "n_regressors": 5, "rank": 3},
    "converge_equations": [50],
    "seeds": 3,
    "own": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
    "strong": {"ranks": [1, 2, 3], "seeds": 40},
}
SMALL: dict[str, Any] = {
    "n_equations": [100, 400],
    "grow": {"n_obs": 50, "n_regressors": 2, "rank": 2},
    "converge": {"n_obs": 300, "n_regressors": 2, "rank": 2},
    "converge_equations": [10],
    "seeds": 1,
    "own": [1e-2, 1e-6],
    "strong": {"ranks": [1], "seeds": 2},
}
TOLERANCES = (1e-6, 1e-7, 1e-8)
GAP = 1e-8  # of nll per row
TURNS = 4  # evaluations in a run, of which the fastest counts
LAST_DIGITS, MOST_ROUNDS = 1e-14, 20_000  # where the dense EM ends
LOOSE = 0.1  # a few rounds are enough to time one


@dataclass(frozen=True)
class Data:
    """X : (N, K, p).  Y : (N, K)."""

    X: np.ndarray
    Y: np.ndarray


def simulated(n_obs: int, n_equations: int, n_regressors: int, rank: int, seed: int) -> Data:
    """Own regressors in every equation; factors take up about half of the variance of the errors."""
    rng = np.random.default_rng([seed, n_equations])
    X = rng.normal(size=(n_obs, n_equations, n_regressors))
    F = rng.normal(size=(n_equations, rank)) / np.sqrt(rank)
    E = rng.normal(size=(n_obs, rank)) @ F.T
    E += rng.normal(size=E.shape) * rng.uniform(0.5, 1.5, size=n_equations)
    return Data(X, np.einsum("nkp,kp->nk", X, rng.normal(size=(n_equations, n_regressors))) + E)


# ---------------------------------------------------------------------------------------------- the dense textbook


@dataclass(frozen=True)
class Dense:
    """b : (K, p).  F : (K, k).  d : (K,)."""

    b: np.ndarray
    F: np.ndarray
    d: np.ndarray


def dense_algebra(F: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Sigma^-1 (K, K), log|Sigma|, B = Sigma^-1 F (K, k) and the variance I - B'F (k, k) of the factors given a row."""
    sigma = F @ F.T + np.diag(d)
    inverse = np.linalg.inv(sigma)
    B = inverse @ F
    return inverse, float(np.linalg.slogdet(sigma)[1]), B, np.eye(F.shape[1]) - B.T @ F


def dense_round(data: Data, gram: np.ndarray, at: Dense) -> tuple[Dense, float]:
    """The next point, and the nll per row of this one. gram : (K, p, p) X_j'X_j.

    E step: mean and variance of the factors of every row. M step: each equation's coefficients given them, then F, d
    given the coefficients.  Source: Rubin & Thayer (1982), Meng & Rubin (1993).
    """
    n_obs, n_equations = data.Y.shape
    residual = data.Y - np.einsum("nkp,kp->nk", data.X, at.b)
    inverse, logdet, B, variance = dense_algebra(at.F, at.d)
    nll = 0.5 * (n_equations * np.log(2 * np.pi) + logdet + np.vdot(residual @ inverse, residual) / n_obs)
    Z = residual @ B
    adjusted = np.einsum("nkp,nk->kp", data.X, data.Y - Z @ at.F.T)
    b = np.linalg.solve(gram, adjusted[:, :, None])[:, :, 0]
    residual = data.Y - np.einsum("nkp,kp->nk", data.X, b)
    along = residual.T @ Z / n_obs
    F = np.linalg.solve(variance + Z.T @ Z / n_obs, along.T).T
    return Dense(b, F, np.mean(residual**2, axis=0) - np.sum(F * along, axis=1)), float(nll)


def dense_start(data: Data, rank: int) -> tuple[np.ndarray, Dense]:
    """X_j'X_j (K, p, p), and the start: least squares and principal components of its residuals."""
    gram = np.einsum("nkp,nkq->kpq", data.X, data.X)
    b = np.linalg.solve(gram, np.einsum("nkp,nk->kp", data.X, data.Y)[:, :, None])[:, :, 0]
    residual = data.Y - np.einsum("nkp,kp->nk", data.X, b)
    S = residual.T @ residual / len(residual)
    size, vectors = np.linalg.eigh(S)
    F = vectors[:, -rank:] * np.sqrt(size[-rank:])
    return gram, Dense(b, F, np.maximum(np.diag(S) - np.sum(F**2, axis=1), 0.1 * np.diag(S)))


def dense_em(data: Data, rank: int) -> tuple[Dense, list[float]]:
    """Where the dense EM ends, and the nll per row of every round."""
    gram, at = dense_start(data, rank)
    path: list[float] = []
    for _ in range(MOST_ROUNDS):
        after, nll = dense_round(data, gram, at)
        path.append(nll)
        if len(path) > 1 and path[-2] - nll <= LAST_DIGITS * abs(nll):
            break
        at = after
    return at, path


# ---------------------------------------------------------------------------------------------- tasks


def algebra(n_equations: int, rank: int) -> dict[str, Any]:
    """A task: seconds and peak bytes of what depends on Sigma in a round, dense and ours, in turn."""
    rng = np.random.default_rng(n_equations)
    F, d = rng.normal(size=(n_equations, rank)), rng.uniform(0.5, 1.5, size=n_equations)
    SB, diagonal = rng.normal(size=F.shape), 10.0 + np.sum(F**2, axis=1)

    def ours() -> None:
        sigma = LowRank(F, d)
        em_products(sigma)
        nll_from_products(sigma, SB, diagonal)
        em_update(sigma, SB, diagonal, np.full(n_equations, 1e-8))

    def dense() -> None:
        dense_algebra(F, d)

    with threadpool_limits(1):
        seconds = np.min([(timed(dense)[1], timed(ours)[1]) for _ in range(TURNS)], axis=0).tolist()
    return {
        "seconds": sum(seconds),
        "dense_seconds": seconds[0],
        "ours_seconds": seconds[1],
        "dense_bytes": peak_bytes(dense),
        "ours_bytes": peak_bytes(ours),
    }


def peak_bytes(function: Callable[[], None]) -> int:
    """Most bytes that the call held at once, beside what was there before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def whole_round(n_equations: int, n_obs: int, n_regressors: int, rank: int) -> dict[str, Any]:
    """A task: seconds of a whole round, dense and ours, both a pass over the rows, ours with Dask's own share."""
    data = simulated(n_obs, n_equations, n_regressors, rank, seed=0)
    gram, at = dense_start(data, rank)
    system = System.from_arrays(data.Y, data.X)
    problem = Streamed(system.rows, lam_B=0.0, meter=Meter(), dense=False)
    options = Options(algorithm="em", accelerate=False, rel_tol=LOOSE)
    start = problem.coordinates.flat(problem.whitened.start)
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        dense = min(timed(lambda: dense_round(data, gram, at))[1] for _ in range(TURNS))
        found = fit_em(problem, LowRankStructure(rank), options, start)
    rounds = np.diff([row.seconds for row in found.trace if row.step == "em"])
    ours = float(rounds.min())
    return {"seconds": dense + ours, "dense_seconds": dense, "ours_seconds": ours, "rounds": len(rounds)}


def converge(n_equations: int, n_obs: int, n_regressors: int, rank: int, seed: int) -> dict[str, Any]:
    """A task: dense EM, ours plain and accelerated, and ALS, to their last digits on the same data."""
    data = simulated(n_obs, n_equations, n_regressors, rank, seed)
    system = System.from_arrays(data.Y, data.X)
    models = {
        "em_plain": LowRankGLS(rank, algorithm="em", accelerate=False, rel_tol=1e-12, max_sweeps=20_000),
        "em": LowRankGLS(rank, algorithm="em", rel_tol=1e-12, max_sweeps=1_000),
        "als": LowRankGLS(rank, rel_tol=1e-12),
    }
    with threadpool_limits(1):
        (dense, path), seconds = timed(lambda: dense_em(data, rank))
    paths, spent, final = {"dense": path}, {"dense": seconds}, {"dense": path[-1]}
    b, sigma = {"dense": dense.b.ravel()}, {"dense": dense.F @ dense.F.T + np.diag(dense.d)}
    for name, model in models.items():
        fit, spent[name] = timed(lambda model=model: model.fit(system).result_)
        paths[name], final[name] = path_of(fit), fit.nll
        b[name], sigma[name] = fit.coefficients, fit.covariance.dense()
    std_errors, least = fit.std_errors.values.ravel(), min(final.values())  # of ALS, the last
    unit = np.sqrt(np.outer(*[np.diag(sigma["als"])] * 2))
    return {
        "seconds": sum(spent.values()),
        "seconds_of": spent,
        "to_change": {f"{tol:.0e}": {name: changed_by(p, tol) for name, p in paths.items()} for tol in TOLERANCES},
        "to_gap": {name: next((i for i, nll in enumerate(p) if nll - least < GAP), -1) for name, p in paths.items()},
        "nll_apart": max(final.values()) - least,
        "params_apart": float(max(np.abs((b[name] - b["als"]) / std_errors).max() for name in b)),
        "sigma_apart": float(max(np.abs((sigma[name] - sigma["als"]) / unit).max() for name in sigma)),
    }


def strong(own: float, engine: str, ranks: Sequence[int], seeds: int) -> dict[str, Any]:
    """A task: EM against ALS where factors explain nearly everything; 200 rows, 4 + 2 k equations."""
    converged, below, rounds, spent = 0, [], [], 0.0
    for k in ranks:
        for seed in range(seeds):
            system = strong_factors(seed, own, k)
            als = LowRankGLS(k).fit(system).result_
            em, seconds = timed(lambda k=k, system=system: LowRankGLS(k, algorithm="em", engine=engine).fit(system))
            converged += em.result_.termination is Termination.CONVERGED
            below.append(als.loglik - em.result_.loglik)
            rounds.append(int(em.result_.trace["sweep"].iloc[-1]))
            spent += seconds
    return {
        "seconds": spent,
        "fits": len(ranks) * seeds,
        "converged": converged,
        "most_below_als": max(below),
        "median_rounds": float(np.median(rounds)),
        "most_rounds": max(rounds),
    }


def strong_factors(seed: int, own: float, rank: int) -> System:
    """Errors of the equations' own with `own` times the standard deviation that the factors give each."""
    rng, n_equations = np.random.default_rng(seed), 4 + 2 * rank
    X, F = np.c_[np.ones(200), rng.normal(size=(200, 2))], rng.normal(size=(n_equations, rank))
    E = rng.normal(size=(200, rank)) @ F.T
    E += own * np.sqrt(np.sum(F**2, axis=1)) * rng.normal(size=E.shape)
    return System.from_arrays(X @ rng.normal(size=(3, n_equations)) + E, X)


def path_of(fit: Fit) -> list[float]:
    """nll per row at the start and after every sweep of ALS, or at every round of EM."""
    return [row.nll for row in fit.run.history if row.step in ("start", "beta" if fit.algorithm == "als" else "em")]


def changed_by(path: Sequence[float], tol: float) -> int:
    """The first round that changed the nll by no more than `tol` of it; -1 if none did."""
    small = (i for i in range(1, len(path)) if abs(path[i] - path[i - 1]) <= tol * max(1.0, abs(path[i])))
    return next(small, -1)


# ---------------------------------------------------------------------------------------------- the benchmark


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """a of values ~ sizes^a, by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    sizes, grow = size["n_equations"], size["grow"]
    cases = [Case(f"algebra K={K}", "algebra", {"n_equations": K, "rank": grow["rank"]}) for K in sizes]
    cases += [Case(f"round K={K}", "whole_round", {"n_equations": K, **grow}) for K in sizes]
    cases += [
        Case(f"converge K={K} seed={seed}", "converge", {"n_equations": K, **size["converge"], "seed": seed}, at_most=1)
        for K in size["converge_equations"]
        for seed in range(size["seeds"])
    ]
    cases += [
        Case(f"strong {engine} own={own:g}", "strong", {"own": own, "engine": engine, **size["strong"]}, at_most=1)
        for own in size["own"]
        for engine in ("compress", "stream")
    ]
    runs = session.alternate(cases)
    table, summary = [], {}
    measured = (("algebra", "bytes"), ("algebra", "seconds"), ("round", "seconds"))
    found = {
        (part, who, what): [median(runs, f"{part} K={K}", f"{who}_{what}") for K in sizes]
        for part, what in measured
        for who in ("dense", "ours")
    }
    for i, K in enumerate(sizes):
        table.append({"K": K, **{f"{part} {who} {what}": values[i] for (part, who, what), values in found.items()}})
    for (part, who, what), values in found.items():
        summary[f"exponent_{part}_{what}_{who}"] = exponent(sizes, values)
        summary[f"exponent_{part}_{what}_{who}_upper_half"] = exponent(sizes[-3:], values[-3:])
    ends = [r for r in runs if r["case"].startswith("converge")]
    for name in ("dense", "em_plain", "em", "als"):
        for tol in ends[0]["to_change"]:
            summary[f"rounds_to_{tol}_{name}"] = [r["to_change"][tol][name] for r in ends]
        summary[f"rounds_to_gap_{name}"] = [r["to_gap"][name] for r in ends]
    for r in (r for r in runs if r["case"].startswith("strong")):
        summary[r["case"]] = {key: r[key] for key in ("fits", "converged", "most_below_als", "most_rounds")}
    for key in ("nll_apart", "params_apart", "sigma_apart"):
        summary[f"most_{key}"] = max(r[key] for r in ends)
    return Report({**size, "gap": GAP}, runs, summary, table)


TASKS = {"algebra": algebra, "whole_round": whole_round, "converge": converge, "strong": strong}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
