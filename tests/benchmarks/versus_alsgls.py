"""alsgls on its own simulated data, in memory, against lrgls_dask: seconds from arrays to result, and the optimum.

Both run with rel_tol = 1e-9 and no penalty. The negative log-likelihood per row of both comes from one dense formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from alsgls import XB_from_Blist, als_gls, simulate_sur
from harness import Case, Report, Session, dense_nll, main, median, ratio, timed

from lrgls_dask import LowRankGLS, System

RANK, REL_TOL, SEED = 3, 1e-9, 0
MOST_SWEEPS = 200  # far more than either takes to get to REL_TOL
FULL: dict[str, Any] = {"n_equations": 50, "n_regressors": 5, "n_obs": [100_000, 1_000_000]}
SMALL: dict[str, Any] = {"n_equations": 8, "n_regressors": 2, "n_obs": [1_000]}
SLOW_ROWS, SLOW_RUNS = 1_000_000, 2  # alsgls takes minutes there


def data(n_obs: int, n_equations: int, n_regressors: int) -> tuple[list[np.ndarray], np.ndarray]:
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, RANK, SEED)
    return xs, y


def fit_alsgls(**shape: int) -> dict[str, Any]:
    xs, y = data(**shape)
    options: dict[str, Any] = {"k": RANK, "lam_B": 0.0, "rel_tol": REL_TOL, "sweeps": MOST_SWEEPS}
    (b, f, d, _, info), seconds = timed(lambda: als_gls(xs, y, **options))
    sweeps = len(info["nll_trace"]) - 1
    nll = dense_nll(y, XB_from_Blist(xs, b), f, d)
    return {"seconds": seconds, "nll": nll, "sweeps": sweeps, "converged": sweeps < MOST_SWEEPS}


def fit_lrgls(**shape: int) -> dict[str, Any]:
    xs, y = data(**shape)
    model = LowRankGLS(rank=RANK, rel_tol=REL_TOL, max_sweeps=MOST_SWEEPS)
    fit, seconds = timed(lambda: model.fit(System.from_arrays(y, xs)).result_)
    b = fit.params.to_numpy().reshape(shape["n_equations"], shape["n_regressors"], 1)
    nll = dense_nll(y, XB_from_Blist(xs, list(b)), fit.loadings.to_numpy(), fit.idio_var.to_numpy())
    return {"seconds": seconds, "nll": nll, "sweeps": fit.n_sweeps, "converged": fit.termination.value == "converged"}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    shape = {name: size[name] for name in ("n_equations", "n_regressors")}
    runs: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for n_obs in size["n_obs"]:
        arguments = {"n_obs": n_obs, **shape}
        slow = SLOW_RUNS if n_obs >= SLOW_ROWS else session.repeat
        ours, theirs = f"lrgls_dask N={n_obs}", f"alsgls N={n_obs}"
        runs += session.alternate(
            [Case(theirs, "alsgls", arguments, at_most=slow), Case(ours, "lrgls_dask", arguments)]
        )
        summary[f"times_faster_N{n_obs}"] = ratio(runs, theirs, ours)
        summary[f"nll_excess_N{n_obs}"] = median(runs, ours, "nll") - median(runs, theirs, "nll")
    return Report({**size, "rank": RANK, "rel_tol": REL_TOL}, runs, summary)


TASKS = {"alsgls": fit_alsgls, "lrgls_dask": fit_lrgls}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
