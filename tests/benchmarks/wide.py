"""Streamed fits of many equations beside reading their rows: regressors of their own, and twenty that all share.

`own`: 2,000 equations of ten regressors each, fitted by alternating steps. `shared`: 10,000 equations of the same
twenty, fitted without a matrix of equations by equations. `read` does the least that a pass must: two threads read
every chunk of the same store into memory that they use again. Seconds a pass are those of the whole fit over its
passes, what the client does between them included.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
from harness import Case, Report, Session, Task, main, median, store_files, timed

from lrgls_dask import LowRankGLS, System
from lrgls_dask.simulate import simulate_to_zarr

THREADS, RANK = 2, 8
FULL: dict[str, dict[str, Any]] = {
    "own": {"n_obs": 50_000, "n_equations": 2_000, "n_regressors": 10, "n_shared": 0, "row_chunk": 125},
    "shared": {"n_obs": 50_000, "n_equations": 10_000, "n_regressors": 0, "n_shared": 20, "row_chunk": 250},
}
SMALL: dict[str, dict[str, Any]] = {
    "own": {"n_obs": 2_000, "n_equations": 60, "n_regressors": 5, "n_shared": 0, "row_chunk": 200},
    "shared": {"n_obs": 2_000, "n_equations": 200, "n_regressors": 0, "n_shared": 5, "row_chunk": 200},
}
ALGORITHM = {"own": "als", "shared": "em"}


def read(path: str, threads: int) -> dict[str, Any]:
    """Seconds that two threads take to read every file of the store, each into memory of its own."""
    files = store_files(Path(path))
    largest = max(file.stat().st_size for file in files)
    shares = [files[i::threads] for i in range(threads)]
    buffers = [np.zeros(largest, dtype=np.uint8) for _ in shares]

    def take(share: tuple[Path, ...], buffer: np.ndarray) -> int:
        total = 0
        for file in share:
            with file.open("rb", buffering=0) as opened:
                total += opened.readinto(buffer)
        return total

    with ThreadPoolExecutor(threads) as pool:
        sizes, seconds = timed(lambda: list(pool.map(take, shares, buffers)))
    return {"seconds": seconds, "bytes": sum(sizes)}


def fit(path: str, threads: int, algorithm: str, rank: int) -> dict[str, Any]:
    """A task: from the path to the fit, its passes, and what the plan said before."""
    model = LowRankGLS(rank=rank, engine="stream", algorithm=algorithm)
    with dask.config.set(scheduler="threads", num_workers=threads):
        found, seconds = timed(lambda: model.fit(System.from_zarr(path)).result_)
    trace = found.trace
    gaps = (trace["nll"] - trace["nll"].iloc[-1]).to_numpy()
    return {
        "seconds": seconds,
        "passes": found.n_passes,
        "seconds_a_pass": seconds / found.n_passes,
        "passes_to_last_1e-6": int(trace["passes"].to_numpy()[gaps < 1e-6].min()),
        "planned_peak": model.plan_.client_peak,
        "planned_passes": model.plan_.passes,
        "termination": found.termination.value,
        "nll": found.nll,
    }


def run(session: Session) -> Report:
    sizes, rank = (SMALL, 2) if session.small else (FULL, RANK)
    runs, summary = [], {}
    for name, size in sizes.items():
        path = session.folder / f"wide-{name}-{size['n_obs']}.zarr"
        if not path.exists():
            simulate_to_zarr(path, rank=rank, **size)
        of_fit = {"path": str(path), "threads": THREADS, "algorithm": ALGORITHM[name], "rank": rank}
        cases = [
            Case(f"read {name}", "read", {"path": str(path), "threads": THREADS}),
            Case(f"fit {name}", "fit", of_fit, at_most=2),
        ]
        found = session.alternate(cases)
        runs += found
        fits = [each for each in found if each["case"] == f"fit {name}"]
        summary |= {
            f"pass_over_read_{name}": median(found, f"fit {name}", "seconds_a_pass") / median(found, f"read {name}"),
            f"passes_{name}": int(median(found, f"fit {name}", "passes")),
            f"peak_{name}": int(max(each["peak_sum"] for each in fits)),
            f"planned_peak_{name}": int(max(each["planned_peak"] for each in fits)),
        }
    return Report({"threads": THREADS, "rank": rank, **sizes}, runs, summary)


TASKS: dict[str, Task] = {"read": read, "fit": fit}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
