"""Both engines on a grid of shapes: what the plan says each takes, what it took, and whether "auto" took the faster.

Shapes: rows, equations, regressors (shared, or so many of its own for each equation) and rank. Rows are in memory, so
that the figures are of arithmetic; the seconds of a run are of `fit`, two threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
from harness import Case, Report, Session, Task, main, median, timed

from lrgls_dask import LowRankGLS, System

THREADS = 2
# rows, equations, regressors, whether they are shared, rank
FULL = [
    (1_000_000, 50, 5, True, 3),
    (2_000_000, 10, 5, True, 1),
    (300_000, 100, 50, True, 3),
    (100_000, 50, 300, True, 2),
    (200_000, 200, 10, True, 3),
    (100_000, 500, 5, True, 3),
    (50_000, 1_000, 5, True, 5),
    (20_000, 1_000, 200, True, 3),
    (20_000, 2_000, 10, True, 3),
    (3_000, 2_000, 5, True, 3),
    (500, 3_000, 5, True, 3),
    (300, 6_000, 5, True, 8),
    (8_000, 4_000, 10, True, 4),
    (5_000, 6_000, 10, True, 4),
    (500_000, 20, 5, False, 2),
    (200_000, 50, 5, False, 3),
    (100_000, 100, 3, False, 3),
    (50_000, 200, 5, False, 3),
    (30_000, 300, 3, False, 3),
    (20_000, 500, 4, False, 3),
    (10_000, 300, 20, False, 3),
    (5_000, 800, 5, False, 3),
    (3_000, 1_000, 10, False, 4),
    (1_000, 500, 10, False, 3),
]
SMALL = [(2_000, 8, 3, True, 1), (1_000, 5, 2, False, 1)]
ENGINES = ("compress", "stream")
SLOW = 120.0  # planned seconds beyond which an engine is not tried


def draw(n_obs: int, n_equations: int, n_regressors: int, shared: bool, rank: int) -> System:
    """Rows of a system with so many factors; every equation has an effect of each regressor."""
    rng = np.random.default_rng([n_obs, n_equations])
    loadings = rng.normal(size=(rank, n_equations))
    Y = rng.normal(size=(n_obs, rank)) @ loadings + rng.normal(size=(n_obs, n_equations))
    if shared:
        X = rng.normal(size=(n_obs, n_regressors))
        Y += X @ rng.normal(size=(n_regressors, n_equations))
        return System.from_arrays(Y, X)
    X = rng.normal(size=(n_obs, n_equations, n_regressors))
    Y += np.einsum("nkp,kp->nk", X, rng.normal(size=(n_equations, n_regressors)))
    return System.from_arrays(Y, X)


def fit(engine: str, shape: Sequence[int]) -> dict[str, Any]:
    """A task: a fit by one engine; where its plan says that it would take too long, the seconds of the plan."""
    system = draw(*shape)  # type: ignore[arg-type]
    model = LowRankGLS(shape[-1], engine=engine)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        plan, auto = model.plan(system), LowRankGLS(shape[-1]).plan(system).engine
        record = {"planned_seconds": plan.seconds, "planned_passes": plan.passes, "auto": auto}
        if plan.seconds > SLOW:
            return {"seconds": plan.seconds, "ran": False, **record}
        found, seconds = timed(lambda: model.fit(system).result_)
    peaks = {"planned_peak": plan.client_peak, "passes": found.n_passes, "nll": found.nll}
    return {"seconds": seconds, "ran": True, **record, **peaks}


def run(session: Session) -> Report:
    shapes = SMALL if session.small else FULL
    named = {str(shape): {engine: f"{engine} {shape}" for engine in ENGINES} for shape in shapes}
    cases = [
        Case(named[str(shape)][engine], "fit", {"engine": engine, "shape": shape})
        for shape in shapes
        for engine in ENGINES
    ]
    runs = session.alternate(cases)
    ran = {run["case"] for run in runs if run["ran"]}
    table, regrets, off = [], [], []
    for shape, names in named.items():
        found = {engine: median(runs, case) for engine, case in names.items()}
        planned = {engine: median(runs, case, "planned_seconds") for engine, case in names.items()}
        auto = next(run["auto"] for run in runs if run["case"] == names["compress"])
        regrets.append(found[auto] / min(found.values()))
        off += [found[engine] / planned[engine] for engine, case in names.items() if case in ran]
        figures = {f"planned, {engine}": value for engine, value in planned.items()}
        table.append({"shape": shape, **found, **figures, "auto": auto, "over_faster": regrets[-1]})
    summary = {
        "auto_over_faster_at_most": max(regrets),
        "auto_within_1.25": float(np.mean(np.array(regrets) <= 1.25)),
        "predicted_within_1.6": float(np.mean([1 / 1.6 <= each <= 1.6 for each in off])),
        "took_over_predicted": float(np.median(off)),
    }
    return Report({"threads": THREADS}, runs, summary, table)


TASKS: dict[str, Task] = {"fit": fit}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
