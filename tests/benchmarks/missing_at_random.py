"""Bias under missing at random: the likelihood of what each row shows against complete rows only.

The first response is always seen. Each other one is missing with a probability that grows with the first, which shares
a factor with all: a row's errors then say whether it is complete, although what is missing depends on nothing unseen.
z is the mean error of a coefficient over the seeds in standard errors of that mean: about standard normal for an
unbiased estimate, growing with the root of the number of seeds for a biased one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, timed

from lrgls_dask import LowRankGLS, System

FULL: dict[str, Any] = {"seeds": 100, "n_obs": 1_000, "n_equations": 5, "n_regressors": 2, "rank": 1}
SMALL: dict[str, Any] = {**FULL, "seeds": 15, "n_obs": 400}
STEEP = 1.0  # change of the log-odds of a hole for a change of the first response by its standard deviation


def rows_of(
    seed: int, n_obs: int, n_equations: int, n_regressors: int, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (N, 1 + p) with a constant, Y (N, K) with holes, and the true coefficients (K, 1 + p)."""
    rng = np.random.default_rng([seed, 4])
    X = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, n_regressors))])
    b = rng.normal(size=(n_equations, 1 + n_regressors))
    F = rng.uniform(0.6, 1.2, size=(n_equations, rank))
    Y = X @ b.T + rng.normal(size=(n_obs, rank)) @ F.T + 0.7 * rng.normal(size=(n_obs, n_equations))
    first = (Y[:, 0] - Y[:, 0].mean()) / Y[:, 0].std()
    holes = rng.random((n_obs, n_equations - 1)) < 1.0 / (1.0 + np.exp(1.0 - STEEP * first[:, None]))
    Y[:, 1:][holes] = np.nan
    return X, Y, b


def study(missing: str, seeds: int, **size: int) -> dict[str, Any]:
    """A task: every coefficient's mean error and its z over the seeds, and the share of 95 % intervals that cover."""

    def one(seed: int) -> tuple[np.ndarray, np.ndarray]:
        X, Y, truth = rows_of(seed, **size)
        fit = LowRankGLS(size["rank"], missing=missing).fit(System.from_arrays(Y, X)).result_
        error = fit.coefficients - truth.ravel()
        return error, error / fit.std_errors.values.ravel()

    found, seconds = timed(lambda: [one(seed) for seed in range(seeds)])
    errors, ratios = np.array([e for e, _ in found]), np.array([r for _, r in found])
    z = errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / np.sqrt(seeds))
    return {
        "seconds": seconds,
        "bias": errors.mean(axis=0).tolist(),
        "z": z.tolist(),
        "coverage": float(np.mean(np.abs(ratios) < 1.96)),
    }


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case(how, "study", {"missing": how, **size}, at_most=1) for how in ("em", "drop")])
    summary: dict[str, Any] = {}
    for found in runs:
        how, z = found["case"], np.array(found["z"])
        summary |= {
            f"largest_z_{how}": float(np.abs(z).max()),
            f"root_mean_square_z_{how}": float(np.sqrt(np.mean(z**2))),
            f"largest_bias_{how}": float(np.abs(found["bias"]).max()),
            f"coverage_{how}": found["coverage"],
        }
    return Report({**size, "steep": STEEP}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"study": study}, run, argv)


if __name__ == "__main__":
    cli()
