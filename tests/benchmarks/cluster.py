"""Two worker processes against one where arithmetic is the limit, bytes they move, and the overhead of small chunks.

Workers have one thread each and listen on 127.0.0.1 only. The store is in the page cache, every worker has fitted once
before the clock starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
from distributed import Client, LocalCluster
from distributed.worker import Worker
from harness import Case, Report, Session, main, median, ratio, timed

from lrgls_dask import LowRankGLS, System

RANK, THREADS = 3, 2
FULL = {
    "busy": {"n_obs": 400_000, "n_equations": 100, "n_regressors": 5, "row_chunk": 4_000},
    "narrow": {"n_obs": 1_000_000, "n_equations": 5, "n_regressors": 2},
    "few": 10,
    "many": 10_000,
}
SMALL = {
    "busy": {"n_obs": 8_000, "n_equations": 20, "n_regressors": 5, "row_chunk": 1_000},
    "narrow": {"n_obs": 4_000, "n_equations": 5, "n_regressors": 2},
    "few": 2,
    "many": 40,
}


def on_cluster(path: str, workers: int) -> dict[str, Any]:
    """A task: seconds of the compressing pass and of a whole fit on a cluster of this many processes, and the bytes all
    workers sent, to the scheduler included, during that fit."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, processes=True
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        system, model = System.from_zarr(path), LowRankGLS(rank=RANK)
        model.fit(system)
        _, pass_seconds = timed(system.compress)
        before = bytes_sent(client)
        fit, seconds = timed(lambda: model.fit(system).result_)
        moved = bytes_sent(client) - before
    return {
        "seconds": seconds,
        "pass_seconds": pass_seconds,
        "bytes_moved": moved,
        "bytes_read": fit.bytes_read,
        "nll": fit.nll,
        "planned_worker_peak": model.plan_.worker_peak,
    }


def bytes_sent(client: Client) -> int:
    """Bytes that all workers have sent since they started."""

    def sent(dask_worker: Worker) -> int:
        return int(dask_worker.transfer_outgoing_bytes_total)

    return sum(client.run(sent).values())


def compress_store(path: str) -> dict[str, Any]:
    """A task: seconds of the compressing pass over a store in the page cache, with threads."""
    return _compress(System.from_zarr(path))


def compress_lazy(path: str, row_chunk: int) -> dict[str, Any]:
    """A task: the same over Dask arrays of rows in memory, cut into chunks of this many."""
    system = System.from_zarr(path)
    y, x = (da.from_array(part[0].array[:], chunks=(row_chunk, -1)) for part in (system.rows.y, system.rows.x))
    return _compress(System.from_arrays(y, x, incidence=system.design.incidence()))


def _compress(system: System) -> dict[str, Any]:
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        system.compress()
        _, seconds = timed(system.compress)
    return {"seconds": seconds}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    busy, n_obs = str(session.store(**size["busy"])), size["narrow"]["n_obs"]
    cases = [
        Case("2 workers", "on_cluster", {"path": busy, "workers": 2}),
        Case("1 worker", "on_cluster", {"path": busy, "workers": 1}),
    ]
    for name in ("few", "many"):
        row_chunk = n_obs // size[name]
        path = str(session.store(**size["narrow"], row_chunk=row_chunk))
        cases.append(Case(f"{name} zarr chunks", "compress_store", {"path": path}))
        cases.append(Case(f"{name} dask chunks", "compress_lazy", {"path": path, "row_chunk": row_chunk}))
    runs = session.alternate(cases)
    extra = size["many"] - size["few"]
    summary = {
        "pass_speedup_of_2_workers": ratio(runs, "1 worker", "2 workers", "pass_seconds"),
        "fit_speedup_of_2_workers": ratio(runs, "1 worker", "2 workers"),
        "bytes_moved_over_read": ratio_of_keys(runs, "2 workers", "bytes_moved", "bytes_read"),
        "nll_apart": abs(median(runs, "1 worker", "nll") - median(runs, "2 workers", "nll")),
        **{
            f"ms_per_{kind}_chunk": 1e3 * (median(runs, f"many {kind} chunks") - median(runs, f"few {kind} chunks")) / extra
            for kind in ("zarr", "dask")
        },
    }
    return Report(size, runs, summary)


def ratio_of_keys(runs: Sequence[dict[str, Any]], case: str, key: str, other: str) -> float:
    """Median of one figure of a case over the median of another."""
    return median(runs, case, key) / median(runs, case, other)


TASKS = {"on_cluster": on_cluster, "compress_store": compress_store, "compress_lazy": compress_lazy}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
