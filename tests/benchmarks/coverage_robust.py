"""Coverage of 95 % intervals, robust beside classical: unequal variances, correlation within groups, along time.

Each replicate draws rows and errors anew, fits, and asks whether the interval of every slope holds the true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, Task, main, timed

from lrgls_dask import LowRankGLS, System

K, P, RANK = 4, 3, 1
GROUP = 10  # rows of a group
RHO = 0.5  # autocorrelation of regressors and of errors
FULL = {"n_obs": 2_000, "n_replicates": 1_000}
SMALL = {"n_obs": 500, "n_replicates": 6}
KINDS = {"heteroskedastic": "robust", "clustered": "cluster", "autocorrelated": "hac"}


def draw(errors: str, n_obs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Regressors (N, K, P - 1) and errors (N, K), one common factor, of unit variance or so."""
    x = rng.normal(size=(n_obs, K, P - 1))
    e = rng.normal(size=(n_obs, 1)) * np.array([1.0, -0.8, 0.6, 1.2]) + rng.normal(size=(n_obs, K))
    if errors == "heteroskedastic":
        e *= np.sqrt(0.2 + 0.8 * x[:, :, 0] ** 2)
    elif errors == "clustered":
        of_row = np.arange(n_obs) // GROUP
        x = np.sqrt(0.5) * (x + rng.normal(size=x.shape)[of_row])
        e = np.sqrt(0.5) * (e + rng.permutation(e)[of_row])
    else:
        for t in range(1, n_obs):
            x[t] = RHO * x[t - 1] + np.sqrt(1 - RHO**2) * x[t]
            e[t] = RHO * e[t - 1] + np.sqrt(1 - RHO**2) * e[t]
    return x, e


def simulate(errors: str, n_obs: int, n_replicates: int) -> dict[str, Any]:
    """Share of slopes inside their intervals, and mean and standard deviation of their z-scores."""
    rng = np.random.default_rng([2026, len(errors)])
    inside: dict[str, list[np.ndarray]] = {"classical": [], KINDS[errors]: []}
    z: dict[str, list[np.ndarray]] = {"classical": [], KINDS[errors]: []}

    def replicates() -> None:
        for _ in range(n_replicates):
            x, e = draw(errors, n_obs, rng)
            b = rng.normal(size=(K, P - 1))
            groups = np.arange(n_obs) // GROUP
            designs = [np.column_stack([np.ones(n_obs), x[:, j]]) for j in range(K)]
            system = System.from_arrays(np.einsum("njp,jp->nj", x, b) + e, designs, groups=groups)
            fit = LowRankGLS(RANK).fit(system).result_
            slopes = np.arange(K * P) % P > 0
            for kind, made in (("classical", fit), (KINDS[errors], fit.with_cov(KINDS[errors]))):  # type: ignore[arg-type]
                low, high = made.conf_int().values[slopes].T
                inside[kind].append((low <= b.ravel()) & (b.ravel() <= high))
                z[kind].append((made.params.values[slopes] - b.ravel()) / made.std_errors.values[slopes])

    _, seconds = timed(replicates)
    return {
        "seconds": seconds,
        "kind": KINDS[errors],
        "coverage": {kind: float(np.mean(values)) for kind, values in inside.items()},
        "z_mean": {kind: float(np.mean(values)) for kind, values in z.items()},
        "z_sd": {kind: float(np.std(values)) for kind, values in z.items()},
    }


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = [Case(errors, "simulate", {"errors": errors, **size}, at_most=1) for errors in KINDS]
    runs = session.alternate(cases)
    summary = {}
    for found in runs:
        for kind in ("classical", found["kind"]):
            summary[f"{found['case']}_{kind}_coverage"] = found["coverage"][kind]
            summary[f"{found['case']}_{kind}_z_sd"] = found["z_sd"][kind]
    return Report({**size, "n_equations": K, "n_regressors": P, "rank": RANK}, runs, summary)


TASKS: dict[str, Task] = {"simulate": simulate}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
