"""Passes over the rows that the stream engine needs to come within 1e-7 and 1e-9 of the optimum, in nll per row.

The optimum is that of a tight fit of the compressed system; the gap after each half-step stands against the passes so
far. Passes to a gap are those of `trace`; passes in all are the rows of X that really were read until the fit had
stopped, of which standard errors take one after the last half-step.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
from alsgls import simulate_sur
from harness import Case, Report, Session, main, timed

from lrgls_dask import LowRankGLS, System

FULL: dict[str, Any] = {
    "n_obs": 20_000,
    "n_equations": 100,
    "n_regressors": 5,
    "rank": 4,
    "row_chunk": 1_000,
    "seeds": [0, 1, 2, 3, 4],
}
SMALL: dict[str, Any] = {
    "n_obs": 1_000,
    "n_equations": 10,
    "n_regressors": 2,
    "rank": 2,
    "row_chunk": 250,
    "seeds": [0],
}
GAPS = (1e-7, 1e-9)  # what the passes are counted to
REL_TOLS = (1e-6, 1e-8, 1e-10)  # the default, and what a user would ask for who wants each gap; nll is about 100
OPTIMUM_TOL, OPTIMUM_SWEEPS = 1e-15, 500


class RowCounter:
    """Counts the rows of every block that passes; as a function of a block it is the identity."""

    def __init__(self) -> None:
        self.rows = 0
        self._lock = threading.Lock()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        with self._lock:
            self.rows += len(block)
        return block

    def __dask_tokenize__(self) -> int:
        return id(self)


def follow(n_obs: int, n_equations: int, n_regressors: int, rank: int, row_chunk: int, seed: int) -> dict[str, Any]:
    """A task: gap and passes of every half-step of one streamed fit at each rel_tol, and the optimum they go to."""
    xs, y, _, _ = simulate_sur(n_obs, 10, n_equations, n_regressors, rank, seed)
    x, incidence = np.hstack(xs), np.kron(np.eye(n_equations, dtype=bool), np.ones((n_regressors, 1), dtype=bool))
    tight = LowRankGLS(rank=rank, engine="compress", rel_tol=OPTIMUM_TOL, max_sweeps=OPTIMUM_SWEEPS)
    optimum = tight.fit(System.from_arrays(y, x, incidence=incidence)).result_.nll
    fits, seconds = timed(lambda: [stream(y, x, incidence, row_chunk, rank, rel_tol, optimum) for rel_tol in REL_TOLS])
    return {"seconds": seconds, "seed": seed, "optimum": optimum, "fits": fits}


def stream(
    y: np.ndarray, x: np.ndarray, incidence: np.ndarray, row_chunk: int, rank: int, rel_tol: float, optimum: float
) -> dict[str, Any]:
    """One streamed fit, half-step by half-step; counted_passes are the rows of X read, over N."""
    counter = RowCounter()
    counted = da.from_array(x, chunks=(row_chunk, -1)).map_blocks(counter, dtype=x.dtype, meta=x[:0])
    system = System.from_arrays(da.from_array(y, chunks=(row_chunk, -1)), counted, incidence=incidence)
    model = LowRankGLS(rank=rank, engine="stream", rel_tol=rel_tol)
    with dask.config.set(scheduler="threads"):
        fit = model.fit(system).result_
    return {
        "rel_tol": rel_tol,
        "steps": fit.trace["step"].tolist(),
        "gaps": (fit.trace["nll"] - optimum).tolist(),
        "passes": fit.trace["passes"].tolist(),
        "fit_passes": fit.n_passes,
        "counted_passes": counter.rows / len(x),
        "termination": fit.termination.value,
    }


def passes_to(gap: float, fit: dict[str, Any]) -> int | None:
    """Passes after the first half-step whose gap is below; None if the fit ended before."""
    return next((passes for found, passes in zip(fit["gaps"], fit["passes"], strict=True) if found < gap), None)


def lines(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed of one seed."""
    return [
        {
            "seed": record["seed"],
            "rel_tol": fit["rel_tol"],
            **{f"passes to {gap:g}": passes_to(gap, fit) for gap in GAPS},
            "passes in all": fit["fit_passes"],
            "counted": fit["counted_passes"],
            "last gap": fit["gaps"][-1],
            "ended": fit["termination"],
        }
        for fit in record["fits"]
    ]


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    shape = {name: value for name, value in size.items() if name != "seeds"}
    # passes are counted, not timed: once is enough
    runs = session.alternate(
        [Case(f"seed {seed}", "follow", {**shape, "seed": seed}, at_most=1) for seed in size["seeds"]]
    )
    summary: dict[str, Any] = {}
    for position, rel_tol in enumerate(REL_TOLS):
        fits = [record["fits"][position] for record in runs]
        in_all = [fit["counted_passes"] for fit in fits]
        summary[f"median_passes_in_all_at_rel_tol_{rel_tol:g}"] = statistics.median(in_all)
        summary[f"most_passes_in_all_at_rel_tol_{rel_tol:g}"] = max(in_all)
        summary[f"largest_gap_at_rel_tol_{rel_tol:g}"] = max(fit["gaps"][-1] for fit in fits)
        for gap in GAPS:
            found = [passes_to(gap, fit) for fit in fits]
            reached = [passes for passes in found if passes is not None]
            name = f"passes_to_{gap:g}_at_rel_tol_{rel_tol:g}"
            summary[f"median_{name}"] = statistics.median(reached) if reached else None
            summary[f"most_{name}"] = max(reached) if len(reached) == len(found) else None
    return Report(size, runs, summary, [line for record in runs for line in lines(record)])


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"follow": follow}, run, argv)


if __name__ == "__main__":
    cli()
