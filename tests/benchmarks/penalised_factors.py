"""Fits with `lam_F > 0` against the same fits with `lam_F = 0` on small systems, in turns within one process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, timed

from lrgls_dask import FitWarning, LowRankGLS, System

LAM_F, FACTORS, SEED = 0.1, 3, 0
FULL = {"n_obs": 100, "n_equations": 20, "turns": 5}
SMALL = {"n_obs": 60, "n_equations": 6, "turns": 2}
KINDS: dict[str, dict[str, Any]] = {
    "shared regressors": {"own": False, "rank": FACTORS},
    "own regressors": {"own": True, "rank": FACTORS},
    "rank by BIC": {"own": True, "rank": "bic"},
}


def system(own: bool, n_obs: int, n_equations: int) -> System:
    """Three factors, an intercept and two regressors, shared or each equation's own."""
    rng = np.random.default_rng([SEED, n_obs, n_equations])
    width = 2 * n_equations if own else 2
    X = np.column_stack([np.ones(n_obs), rng.standard_normal((n_obs, width))])
    columns = [np.array([0, 1 + 2 * j, 2 + 2 * j] if own else [0, 1, 2]) for j in range(n_equations)]
    errors = rng.standard_normal((n_obs, FACTORS)) @ rng.standard_normal((FACTORS, n_equations))
    errors += rng.standard_normal((n_obs, n_equations))
    Y = np.column_stack([X[:, c] @ rng.standard_normal(3) for c in columns]) + errors
    incidence = np.zeros((X.shape[1], n_equations), dtype=bool)
    for j, c in enumerate(columns):
        incidence[c, j] = True
    return System.from_arrays(Y, X, incidence=incidence)


def in_turns(kind: str, n_obs: int, n_equations: int, turns: int) -> dict[str, Any]:
    """Seconds of processor of each fit, plain and penalised in turns, the first of each not counted."""
    data, rank = system(KINDS[kind]["own"], n_obs, n_equations), KINDS[kind]["rank"]
    seconds: dict[float, list[float]] = {0.0: [], LAM_F: []}
    objective: dict[float, float] = {}

    def all_turns() -> None:
        for turn in range(turns + 1):
            for lam_F, taken in seconds.items():
                begin = time.process_time()
                objective[lam_F] = LowRankGLS(rank, lam_F=lam_F).fit(data).result_.objective
                if turn:
                    taken.append(time.process_time() - begin)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # a variance on its floor is as slow as any
        _, total = timed(all_turns)
    plain, penalised = (float(np.median(seconds[lam_F])) for lam_F in (0.0, LAM_F))
    return {"seconds": total, "plain": plain, "penalised": penalised, "objective": objective[LAM_F]}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case(kind, "in_turns", {"kind": kind, **size}) for kind in KINDS])
    table, summary = [], {}
    for kind in KINDS:
        mine = [each for each in runs if each["case"] == kind]
        plain, penalised = (float(np.median([each[name] for each in mine])) for name in ("plain", "penalised"))
        table.append({"case": kind, "plain": plain, "penalised": penalised, "times": penalised / plain})
        summary[kind] = penalised / plain
    return Report({**size, "lam_F": LAM_F, "factors": FACTORS}, runs, {"times_slower": summary}, table)


TASKS = {"in_turns": in_turns}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
