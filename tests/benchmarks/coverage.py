"""Coverage of 95 % intervals: classical ones on many rows, studentised ones of the parametric bootstrap on few."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, median, timed

from lrgls_dask import FitWarning, LowRankGLS, System

FULL: dict[str, Any] = {
    "classical": {"n_obs": 2_000, "n_equations": 10, "rank": 2, "simulations": 400, "n": 0},
    "bootstrap": {"n_obs": 40, "n_equations": 4, "rank": 1, "simulations": 400, "n": 399},
}
SMALL: dict[str, Any] = {
    "classical": {"n_obs": 300, "n_equations": 4, "rank": 1, "simulations": 10, "n": 0},
    "bootstrap": {"n_obs": 40, "n_equations": 4, "rank": 1, "simulations": 3, "n": 39},
}
LEVEL, SLOPES = 0.95, 2


def coverage(n_obs: int, n_equations: int, rank: int, simulations: int, n: int) -> dict[str, Any]:
    """Share of the true coefficients inside their intervals; by the bootstrap with n replicates where n > 0."""
    covered, classical, failed = [], [], 0

    def simulate() -> None:
        nonlocal failed
        for number in range(simulations):
            rng = np.random.default_rng([number, n_obs])
            system, truth = simulated(rng, n_obs, n_equations, rank)
            fit = LowRankGLS(rank).fit(system).result_
            classical.append(inside(fit.conf_int(1 - LEVEL).values, truth))
            if n > 0:
                boot = fit.bootstrap(n, seed=number)
                failed += boot.n_failed
                covered.append(inside(boot.conf_int(1 - LEVEL).values, truth))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # Heywood cases are part of the sampling distribution
        _, seconds = timed(simulate)
    shares = np.mean(covered if n > 0 else classical, axis=1)
    return {
        "seconds": seconds,
        "coverage": float(shares.mean()),
        "monte_carlo_error": float(shares.std(ddof=1) / np.sqrt(simulations)),
        "classical_coverage": float(np.mean(classical)),
        "failed": failed,
    }


def simulated(rng: np.random.Generator, n_obs: int, n_equations: int, rank: int) -> tuple[System, np.ndarray]:
    """A system with an intercept and two regressors of its own in each equation, and its coefficients."""
    xs = [np.column_stack([np.ones(n_obs), rng.standard_normal((n_obs, SLOPES))]) for _ in range(n_equations)]
    b = rng.standard_normal((n_equations, 1 + SLOPES))
    loadings = rng.uniform(0.5, 1.0, (n_equations, rank)) * rng.choice([-1, 1], (n_equations, rank))
    errors = rng.standard_normal((n_obs, rank)) @ loadings.T
    errors += rng.standard_normal((n_obs, n_equations)) * rng.uniform(0.7, 1.0, n_equations)
    y = np.column_stack([x @ row for x, row in zip(xs, b, strict=True)]) + errors
    return System.from_arrays(y, xs), b.ravel()


def inside(interval: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (interval[:, 0] <= truth) & (truth <= interval[:, 1])


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case(name, "coverage", arguments, at_most=1) for name, arguments in size.items()])
    summary = {f"coverage_{name}": median(runs, name, "coverage") for name in size}
    summary |= {f"monte_carlo_error_{name}": median(runs, name, "monte_carlo_error") for name in size}
    summary["coverage_classical_at_few_rows"] = median(runs, "bootstrap", "classical_coverage")
    return Report({"level": LEVEL, **size}, runs, summary)


TASKS = {"coverage": coverage}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
