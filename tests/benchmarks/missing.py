"""Missing responses: what a pass costs beside one over complete rows, how many passes a fit takes, few patterns.

`pass` times the pass of an EM round over rows with 20 % of Y missing at random, and the residual pass of a complete fit
over the same rows, both in this process with the threads Dask has. `rounds` counts the passes of a streamed fit to a
gap of 1e-6 in nll per row. `few` times the whole fit of rows in 50 patterns, `complete` that of the same rows complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from harness import Case, Report, Session, main, ratio, timed

from lrgls_dask import LowRankGLS, System
from lrgls_dask.missing.fit import fit_incomplete
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.structures import LowRankStructure
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.streamed import Streamed

FULL = {"n_obs": 1_000_000, "n_equations": 50, "n_regressors": 5, "rank": 3, "row_chunk": 10_000}
SMALL = {"n_obs": 2_000, "n_equations": 10, "n_regressors": 2, "rank": 2, "row_chunk": 500}
SHARE, PATTERNS, GAP = 0.2, 50, 1e-6
TURNS = 5  # passes of each kind in a run, in turn


def rows_of(
    n_obs: int, n_equations: int, n_regressors: int, rank: int, row_chunk: int, missing: str
) -> tuple[System, int]:
    """Simulated rows with nothing missing ("none"), scattered holes ("scattered") or few patterns ("patterns")."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_obs, n_equations * n_regressors))
    F = rng.normal(size=(n_equations, rank))
    Y = rng.normal(size=(n_obs, rank)) @ F.T
    Y += rng.normal(size=Y.shape) * rng.uniform(0.5, 1.0, size=n_equations)
    if missing == "scattered":
        Y[rng.random(Y.shape) < SHARE] = np.nan
    elif missing == "patterns":
        holes = rng.random((PATTERNS, n_equations)) < SHARE
        Y[holes[rng.integers(0, PATTERNS, size=n_obs)]] = np.nan
    x, y = (da.from_array(a, chunks=(row_chunk, -1)) for a in (X, Y))
    incidence = np.kron(np.eye(n_equations, dtype=bool), np.ones((n_regressors, 1), dtype=bool))
    return System.from_arrays(y, x, incidence=incidence), rank


def passes(**size: int) -> dict[str, Any]:
    """A task: the seconds of a pass over complete rows and of one over rows with holes, in turn."""
    complete, rank = rows_of(**size, missing="none")
    holes, _ = rows_of(**size, missing="scattered")
    whole = Streamed(complete.rows, lam_B=0.0, meter=Meter())
    part = Incomplete(holes.rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    n_equations = size["n_equations"]
    sigma = LowRank(np.random.default_rng(1).normal(size=(n_equations, rank)), np.ones(n_equations))
    c = whole.coordinates.flat(whole.whitened.start)
    times = [
        (timed(lambda: whole.gls_step(c, sigma))[1], timed(lambda: part.latent(part.start(), sigma))[1])
        for _ in range(TURNS)
    ]
    residual, latent = (float(np.median(column)) for column in zip(*times, strict=True))
    return {"seconds": latent, "residual_seconds": residual, "over_residual": latent / residual}


def rounds(**size: int) -> dict[str, Any]:
    """A task: passes of a streamed fit to the gap, and in all."""
    system, rank = rows_of(**size, missing="scattered")
    rows = system.rows
    best = fit_incomplete(
        Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0), LowRankStructure(rank), Options(rel_tol=1e-13)
    )
    problem = Incomplete(rows, lam_B=0.0, meter=Meter(), most_patterns=0)
    found, seconds = timed(lambda: fit_incomplete(problem, LowRankStructure(rank), Options(rel_tol=1e-6)))
    optimum = best.trace[-1].nll
    reached = [row.passes for row in found.trace if row.nll - optimum < GAP]
    return {
        "seconds": seconds,
        "passes_to_gap": reached[0] if reached else None,
        "passes": problem.meter.passes,
        "last_gap": found.trace[-1].nll - optimum,
    }


def few(**size: int) -> dict[str, Any]:
    """A task: the fit of rows in few patterns, compressed by pattern."""
    system, rank = rows_of(**size, missing="patterns")

    def run() -> Incomplete:
        problem = Incomplete(system.rows, lam_B=0.0, meter=Meter())
        fit_incomplete(problem, LowRankStructure(rank), Options())
        return problem

    problem, seconds = timed(run)
    return {"seconds": seconds, "patterns": problem.n_patterns, "passes": problem.meter.passes}


def complete(**size: int) -> dict[str, Any]:
    """A task: the one-pass fit of the same rows with nothing missing."""
    system, rank = rows_of(**size, missing="none")
    _, seconds = timed(lambda: LowRankGLS(rank, engine="compress").fit(system))
    return {"seconds": seconds}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = [Case(task, task, size) for task in ("passes", "few", "complete")]
    runs = session.alternate([*cases, Case("rounds", "rounds", size, at_most=1)])
    by_case = {case: [r for r in runs if r["case"] == case] for case in ("passes", "rounds")}
    summary = {
        "pass_over_residual_pass": float(np.median([r["over_residual"] for r in by_case["passes"]])),
        "few_patterns_over_complete": ratio(runs, "few", "complete"),
        "passes_to_gap": by_case["rounds"][0]["passes_to_gap"],
        "passes": by_case["rounds"][0]["passes"],
    }
    return Report(dict(size), runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"passes": passes, "rounds": rounds, "few": few, "complete": complete}, run, argv)


if __name__ == "__main__":
    cli()
