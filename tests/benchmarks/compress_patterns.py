"""What `compress()` of rows in 50 patterns of missing responses costs beside that of the same rows complete.

Both in this process, in turn, by the time its processors worked, which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from harness import Case, Report, Session, main

from lrgls_dask import System

FULL = {"n_obs": 1_000_000, "n_equations": 50, "n_regressors": 5, "row_chunk": 10_000}
SMALL = {"n_obs": 2_000, "n_equations": 10, "n_regressors": 2, "row_chunk": 500}
SHARE, PATTERNS = 0.2, 50
TURNS = 5  # of each, in turn


def compressing(**size: int) -> dict[str, Any]:
    """A task: processor seconds of both, and how many patterns and rows are kept."""
    complete, holes = (_rows(**size, holes=holes) for holes in (False, True))
    times = [(_seconds(complete), _seconds(holes)) for _ in range(TURNS)]
    whole, parted = (float(np.median(column)) for column in zip(*times, strict=True))
    kept = holes.compress()
    return {
        "seconds": parted,
        "complete_seconds": whole,
        "over_complete": float(np.median([b / a for a, b in times])),
        "patterns": kept.n_patterns,
        "rows_kept": kept.rows.n_rows,
    }


def _rows(n_obs: int, n_equations: int, n_regressors: int, row_chunk: int, *, holes: bool) -> System:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(n_obs, n_equations * n_regressors)), rng.normal(size=(n_obs, n_equations))
    if holes:
        missing = rng.random((PATTERNS, n_equations)) < SHARE
        Y[missing[rng.integers(0, PATTERNS, size=n_obs)]] = np.nan
    incidence = np.kron(np.eye(n_equations, dtype=bool), np.ones((n_regressors, 1), dtype=bool))
    x, y = (da.from_array(values, chunks=(row_chunk, -1)) for values in (X, Y))
    return System.from_arrays(y, x, incidence=incidence)


def _seconds(system: System) -> float:
    began = time.process_time()
    system.compress()
    return time.process_time() - began


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    runs = session.alternate([Case("compressing", "compressing", size, at_most=1)])
    return Report(dict(size), runs, {"patterns_over_complete": runs[0]["over_complete"]})


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, {"compressing": compressing}, run, argv)


if __name__ == "__main__":
    cli()
