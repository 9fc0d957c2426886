"""Two worker processes against one where arithmetic is the limit, bytes they move, and the overhead of small chunks.

Workers have one thread each and listen on 127.0.0.1 only. Stores are in the page cache, and everything has been done
once before the clock starts. Bytes moved are all that passed the loopback interface during a fit: sums, graph and
heartbeats, and other programs' traffic too. (Workers' own counters take a sum for the 48 bytes of its Python object.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import psutil
from distributed import Client, LocalCluster
from harness import Case, Report, Session, Task, main, median, ratio, timed

from lrgls_dask import LowRankGLS, System

RANK, THREADS = 3, 2
FULL: dict[str, Any] = {
    "busy": {"n_obs": 400_000, "n_equations": 100, "n_regressors": 5, "row_chunk": 4_000},
    "narrow": {"n_obs": 1_000_000, "n_equations": 5, "n_regressors": 2},
    "few": 10,
    "many": 10_000,
}
SMALL: dict[str, Any] = {
    "busy": {"n_obs": 8_000, "n_equations": 20, "n_regressors": 5, "row_chunk": 1_000},
    "narrow": {"n_obs": 4_000, "n_equations": 5, "n_regressors": 2},
    "few": 2,
    "many": 40,
}


def on_cluster(path: str, workers: int) -> dict[str, Any]:
    """A task: seconds of the compressing pass and of a whole fit on a cluster of this many processes, and the bytes
    moved during that fit."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", processes=True
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        system, model = System.from_zarr(path), LowRankGLS(rank=RANK)
        model.fit(system)
        _, pass_seconds = timed(system.compress)
        before = loopback_bytes()
        fit, seconds = timed(lambda: model.fit(system).result_)
        moved = loopback_bytes() - before
    return {
        "seconds": seconds,
        "pass_seconds": pass_seconds,
        "bytes_moved": moved,
        "bytes_read": fit.bytes_read,
        "nll": fit.nll,
        "planned_worker_peak": model.plan_.worker_peak,
    }


def loopback_bytes() -> int:
    """Bytes sent over the loopback interface since the machine started."""
    interfaces = psutil.net_io_counters(pernic=True)
    return sum(count.bytes_sent for name, count in interfaces.items() if name.startswith("lo"))


def chunk_overhead(few: str, many: str, few_chunks: int, many_chunks: int) -> dict[str, Any]:
    """A task: milliseconds that each further chunk of the same rows adds to the compressing pass, with threads.

    few, many : two stores of the same rows, so cut. dask_ms is of Dask arrays of the same rows in memory, cut alike.
    """
    stored = [System.from_zarr(path) for path in (few, many)]
    lazy = [in_memory(stored[0], chunks) for chunks in (few_chunks, many_chunks)]
    seconds = [compress_seconds(system) for system in (*stored, *lazy)]
    extra = many_chunks - few_chunks
    return {
        "seconds": sum(seconds),
        "zarr_ms": 1e3 * (seconds[1] - seconds[0]) / extra,
        "dask_ms": 1e3 * (seconds[3] - seconds[2]) / extra,
    }


def in_memory(stored: System, chunks: int) -> System:
    """The same rows as Dask arrays of so many chunks."""
    height = (stored.n_obs // chunks, -1)
    y, x = (da.from_array(parts[0].array[:], chunks=height) for parts in (stored.rows.y, stored.rows.x))
    return System.from_arrays(y, x, incidence=stored.design.incidence())


def compress_seconds(system: System) -> float:
    """Seconds of the second of two compressing passes."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        system.compress()
        return timed(system.compress)[1]


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    busy, narrow = str(session.store(**size["busy"])), size["narrow"]
    counts = {f"{name}_chunks": size[name] for name in ("few", "many")}
    paths = {name: str(session.store(**narrow, row_chunk=narrow["n_obs"] // size[name])) for name in ("few", "many")}
    runs = session.alternate(
        [
            Case("2 workers", "on_cluster", {"path": busy, "workers": 2}),
            Case("1 worker", "on_cluster", {"path": busy, "workers": 1}),
            Case("small chunks", "chunk_overhead", {**paths, **counts}),
        ]
    )
    summary = {
        "pass_speedup_of_2_workers": ratio(runs, "1 worker", "2 workers", "pass_seconds"),
        "fit_speedup_of_2_workers": ratio(runs, "1 worker", "2 workers"),
        "bytes_moved_over_read": median(runs, "2 workers", "bytes_moved") / median(runs, "2 workers", "bytes_read"),
        "nll_apart": abs(median(runs, "1 worker", "nll") - median(runs, "2 workers", "nll")),
        "peak_of_a_process": int(max(run["peak_max"] for run in runs if run["case"] == "2 workers")),
        "planned_worker_peak": int(median(runs, "2 workers", "planned_worker_peak")),
        "ms_per_zarr_chunk": median(runs, "small chunks", "zarr_ms"),
        "ms_per_dask_chunk": median(runs, "small chunks", "dask_ms"),
    }
    return Report(size, runs, summary)


TASKS: dict[str, Task] = {"on_cluster": on_cluster, "chunk_overhead": chunk_overhead}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
