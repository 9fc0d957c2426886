"""One-pass fit against the sum of the same cold store, two threads each, with `cat` of its files beside them.

The sum does what any pass must: read and decode every chunk. So fit / sum says how much of a fit is not reading.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
from harness import Case, Report, Session, Task, fit_store, main, median, ratio, store_files, timed

THREADS = 2
FULL = {"n_obs": 4_000_000, "n_equations": 50, "n_regressors": 5, "row_chunk": 10_000}
SMALL = {"n_obs": 20_000, "n_equations": 10, "n_regressors": 5, "row_chunk": 1_000}


def sum_store(path: str, threads: int) -> dict[str, Any]:
    """Seconds from the path to the sums of X and Y."""

    def add() -> tuple[float, float]:
        arrays = [da.from_zarr(path, component=name) for name in ("X", "Y")]
        return dask.compute(*(array.sum() for array in arrays), scheduler="threads", num_workers=threads)

    sums, seconds = timed(add)
    return {"seconds": seconds, "sums": [float(value) for value in sums]}


def cat_store(path: str) -> dict[str, Any]:
    """Seconds `cat` takes to read every file of the store, and their bytes."""
    files = store_files(Path(path))
    _, seconds = timed(lambda: subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True))
    return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in files)}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    store = session.store(**size)
    files, path = store_files(store), str(store)
    runs = session.alternate(
        [
            Case("fit", "fit", {"path": path, "threads": THREADS}, cold=files),
            Case("sum", "sum", {"path": path, "threads": THREADS}, cold=files),
            Case("cat", "cat", {"path": path}, cold=files),
        ]
    )
    n_bytes = sum(file.stat().st_size for file in files)
    summary = {
        "fit_over_sum": ratio(runs, "fit", "sum"),
        "fit_over_cat": ratio(runs, "fit", "cat"),
        "least_share_from_disk": min(run["disk_bytes"] for run in runs) / n_bytes,
        **{f"{case}_gb_per_s": n_bytes / 1e9 / median(runs, case) for case in ("fit", "sum", "cat")},
        "fit_peak": int(max(run["peak_sum"] for run in runs if run["case"] == "fit")),
        "planned_peak": int(median(runs, "fit", "planned_peak")),
    }
    return Report({**size, "threads": THREADS, "bytes": n_bytes}, runs, summary)


TASKS: dict[str, Task] = {"fit": fit_store, "sum": sum_store, "cat": cat_store}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
