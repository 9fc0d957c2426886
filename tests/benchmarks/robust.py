"""Robust and clustered covariance of a fit against the sum of the same cold store, two threads each.

The covariance reads every row once, as the sum does: their ratio says how much of the pass is not reading. Groups are
runs of 100 rows, and a thousand groups scattered over all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
from harness import Case, Report, Session, Task, main, median, ratio, store_files, timed
from read_limit import FULL, SMALL, THREADS, sum_store

from lrgls_dask import Fit, LowRankGLS, System

RUN_OF_ROWS, SCATTERED_GROUPS = 100, 1_000


def covariance(path: str, fit: str, kind: str, scattered: bool, threads: int) -> dict[str, Any]:
    """Seconds from the path to the (P, P) covariance; the fit is opened before."""
    made, system = Fit.from_zarr(fit), System.from_zarr(path)
    rows = np.arange(system.n_obs)
    groups = None if kind == "robust" else rows % SCATTERED_GROUPS if scattered else rows // RUN_OF_ROWS
    with dask.config.set(scheduler="threads", num_workers=threads):
        found, seconds = timed(lambda: made.cov(kind, system=System.from_zarr(path), groups=groups))
    ratios = np.sqrt(found.values.diagonal()) / made.std_errors.values
    return {"seconds": seconds, "over_classical": [float(ratios.min()), float(ratios.max())]}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    store = session.store(**size)
    files, path = store_files(store), str(store)
    fit = session.folder / f"{store.stem}-fit.zarr"
    LowRankGLS(rank=3).fit(System.from_zarr(path)).result_.to_zarr(fit, overwrite=True)
    arguments = {"path": path, "fit": str(fit), "threads": THREADS}
    runs = session.alternate(
        [
            Case("robust", "cov", {**arguments, "kind": "robust", "scattered": False}, cold=files),
            Case("cluster", "cov", {**arguments, "kind": "cluster", "scattered": False}, cold=files),
            Case("scattered", "cov", {**arguments, "kind": "cluster", "scattered": True}, cold=files),
            Case("sum", "sum", {"path": path, "threads": THREADS}, cold=files),
        ]
    )
    n_bytes = sum(file.stat().st_size for file in files)
    cases = ("robust", "cluster", "scattered")
    summary = {
        **{f"{case}_over_sum": ratio(runs, case, "sum") for case in cases},
        "least_share_from_disk": min(run["disk_bytes"] for run in runs) / n_bytes,
        **{f"{case}_gb_per_s": n_bytes / 1e9 / median(runs, case) for case in (*cases, "sum")},
        "peak": int(max(run["peak_sum"] for run in runs if run["case"] != "sum")),
    }
    return Report({**size, "threads": THREADS, "bytes": n_bytes}, runs, summary)


TASKS: dict[str, Task] = {"cov": covariance, "sum": sum_store}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
