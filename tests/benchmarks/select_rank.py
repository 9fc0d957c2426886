"""The rank by BIC over 1 .. 12, alsgls' `select_rank_bic` against `LowRankGLS(rank="bic")`: seconds, choice, optima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alsgls import select_rank_bic, simulate_sur
from harness import Case, Report, Session, main, ratio, timed

from lrgls_dask import LowRankGLS, System

RANK, REL_TOL, SEED, MOST_SWEEPS = 3, 1e-9, 0, 200
FULL = {"n_obs": 10_000, "n_equations": 50, "n_regressors": 5}
SMALL = {"n_obs": 1_000, "n_equations": 8, "n_regressors": 2}


def select_alsgls(n_obs: int, n_equations: int, n_regressors: int) -> dict[str, Any]:
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, RANK, SEED)
    options: dict[str, Any] = {"lam_B": 0.0, "rel_tol": REL_TOL, "sweeps": MOST_SWEEPS}
    (rank, table), seconds = timed(lambda: select_rank_bic(xs, y, **options))
    return {"seconds": seconds, "rank": int(rank), "bic": {str(row["k"]): float(row["bic"]) for row in table}}


def select_lrgls(n_obs: int, n_equations: int, n_regressors: int) -> dict[str, Any]:
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, RANK, SEED)
    model = LowRankGLS(rank="bic", rel_tol=REL_TOL, max_sweeps=MOST_SWEEPS)
    fit, seconds = timed(lambda: model.fit(System.from_arrays(y, xs)).result_)
    bic = {str(int(row["rank"])): float(row["bic"]) for row in fit.run.candidates}
    return {"seconds": seconds, "rank": fit.rank, "bic": bic, "passes": fit.n_passes}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case("alsgls", "alsgls", size), Case("lrgls_dask", "lrgls_dask", size)])
    theirs, ours = (next(run for run in runs if run["case"] == case) for case in ("alsgls", "lrgls_dask"))
    # both count parameters alike, so BIC differs by 2 N times the negative log-likelihood per row
    excess = {rank: (ours["bic"][rank] - theirs["bic"][rank]) / (2 * size["n_obs"]) for rank in theirs["bic"]}
    summary = {
        "times_faster": ratio(runs, "alsgls", "lrgls_dask"),
        "rank_alsgls": theirs["rank"],
        "rank_lrgls_dask": ours["rank"],
        "passes": ours["passes"],
        "nll_excess_at_chosen_rank": excess[str(theirs["rank"])],
        "most_nll_excess": max(excess.values()),
        "least_nll_excess": min(excess.values()),
    }
    return Report({**size, "true_rank": RANK, "rel_tol": REL_TOL}, runs, summary)


TASKS = {"alsgls": select_alsgls, "lrgls_dask": select_lrgls}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
