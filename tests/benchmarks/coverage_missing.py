"""Coverage of 95 % intervals where a fifth of the responses is missing: robust, clustered and Huber-White errors.

Whether a response is missing depends on its regressor, so values are missing at random given X. Each replicate draws
rows, errors and holes anew, fits what rows show, and asks whether the interval of every slope holds the true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from coverage_robust import GROUP, RANK, K, P, draw
from harness import Case, Report, Session, Task, main, timed

from lrgls_dask import LowRankGLS, System

SHARE = 0.2  # of the responses that are missing
FULL = {"n_obs": 2_000, "n_replicates": 1_000}
SMALL = {"n_obs": 300, "n_replicates": 4}
KINDS = {"heteroskedastic": ("robust", "huber-white"), "clustered": ("cluster",)}


def holes(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, K) which responses are missing: twice the share where the first regressor is positive, none else."""
    return np.asarray((rng.random(x.shape[:2]) < 2 * SHARE) & (x[:, :, 0] > 0))


def simulate(errors: str, n_obs: int, n_replicates: int) -> dict[str, Any]:
    """Share of slopes inside their intervals, by kind of standard errors, and what share was missing."""
    rng = np.random.default_rng([2026, len(errors)])
    inside: dict[str, list[np.ndarray]] = {kind: [] for kind in ("classical", *KINDS[errors])}
    missing = []

    def replicates() -> None:
        for _ in range(n_replicates):
            x, e = draw(errors, n_obs, rng)
            b = rng.normal(size=(K, P - 1))
            gone = holes(x, rng)
            missing.append(gone.mean())
            designs = [np.column_stack([np.ones(n_obs), x[:, j]]) for j in range(K)]
            Y = np.where(gone, np.nan, np.einsum("njp,jp->nj", x, b) + e)
            system = System.from_arrays(Y, designs, groups=np.arange(n_obs) // GROUP)
            fit = LowRankGLS(RANK, missing="em").fit(system).result_
            slopes = np.arange(K * P) % P > 0
            for kind in inside:
                low, high = fit.with_cov(kind).conf_int().values[slopes].T
                inside[kind].append((low <= b.ravel()) & (b.ravel() <= high))

    _, seconds = timed(replicates)
    coverage = {kind: float(np.mean(values)) for kind, values in inside.items()}
    return {"seconds": seconds, "kinds": list(KINDS[errors]), "coverage": coverage, "missing": float(np.mean(missing))}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = [Case(errors, "simulate", {"errors": errors, **size}, at_most=1) for errors in KINDS]
    runs = session.alternate(cases)
    summary = {f"{found['case']}_{kind}_coverage": value for found in runs for kind, value in found["coverage"].items()}
    return Report({**size, "n_equations": K, "n_regressors": P, "rank": RANK, "missing": SHARE}, runs, summary)


TASKS: dict[str, Task] = {"simulate": simulate}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
