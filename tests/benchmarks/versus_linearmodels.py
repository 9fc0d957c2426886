"""linearmodels' `SUR.fit(method="gls")`, in memory, against lrgls_dask: seconds from arrays to result, and peak memory.

linearmodels estimates an unrestricted covariance in two steps, lrgls_dask a low-rank one by maximum likelihood; the
coefficients of both differ by a fraction of a standard error, which is printed. Where memory is too small for
linearmodels at the full size, both run on fewer rows, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
from alsgls import simulate_sur
from harness import Case, Report, Session, main, median, ratio, timed
from linearmodels.system import SUR

from lrgls_dask import LowRankGLS, System

RANK, SEED = 3, 0
FULL = {"n_obs": 40_000, "n_equations": 50, "n_regressors": 5}
SMALL = {"n_obs": 1_000, "n_equations": 6, "n_regressors": 3}
DENSE_COPIES = 4.4  # linearmodels' peak in units of its dense (N K) x P design: measured, 17 GB over 4 GB
ROUND = 1_000


def data(n_obs: int, n_equations: int, n_regressors: int) -> tuple[list[np.ndarray], np.ndarray]:
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, RANK, SEED)
    return xs, y


def fit_linearmodels(**shape: int) -> dict[str, Any]:
    xs, y = data(**shape)
    model, setup = timed(lambda: SUR({f"y{j}": {"dependent": y[:, j], "exog": x} for j, x in enumerate(xs)}))
    result, fitting = timed(lambda: model.fit(method="gls"))
    return {"seconds": setup + fitting, "fit_seconds": fitting, "params": result.params.tolist()}


def fit_lrgls(**shape: int) -> dict[str, Any]:
    xs, y = data(**shape)
    fit, seconds = timed(lambda: LowRankGLS(rank=RANK).fit(System.from_arrays(y, xs)).result_)
    return {"seconds": seconds, "params": fit.params.values.tolist(), "std_errors": fit.std_errors.values.tolist()}


def rows_that_fit(size: dict[str, int]) -> int:
    """The rows asked for, or as many thousands as linearmodels has memory for."""
    n_coefficients = size["n_equations"] * size["n_regressors"]
    per_row = DENSE_COPIES * 8 * size["n_equations"] * n_coefficients
    room = int(psutil.virtual_memory().available / per_row)
    return size["n_obs"] if room >= size["n_obs"] else max(ROUND, room - room % ROUND)


def run(session: Session) -> Report:
    wanted = SMALL if session.small else FULL
    size = {**wanted, "n_obs": rows_that_fit(wanted)}
    if size != wanted:
        print(f"too little memory is free for linearmodels at N = {wanted['n_obs']:,}: N = {size['n_obs']:,} instead")
    runs = session.alternate([Case("linearmodels", "linearmodels", size), Case("lrgls_dask", "lrgls_dask", size)])
    theirs, ours = (next(run for run in runs if run["case"] == case) for case in ("linearmodels", "lrgls_dask"))
    apart = np.abs(np.subtract(ours["params"], theirs["params"])) / np.array(ours["std_errors"])
    summary = {
        "times_faster": ratio(runs, "linearmodels", "lrgls_dask"),
        "times_faster_than_fit_alone": median(runs, "linearmodels", "fit_seconds") / median(runs, "lrgls_dask"),
        "peak_linearmodels": int(median(runs, "linearmodels", "peak_sum")),
        "peak_lrgls_dask": int(median(runs, "lrgls_dask", "peak_sum")),
        "most_apart_in_std_errors": float(apart.max()),
    }
    return Report({**size, "n_obs_wanted": wanted["n_obs"]}, runs, summary)


TASKS = {"linearmodels": fit_linearmodels, "lrgls_dask": fit_lrgls}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
