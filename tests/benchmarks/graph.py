"""The graph of one pass over up to a million chunks, and a scheduler of 500 workers that has it run.

Nothing is computed and nothing read: the stores hold no numbers, a graph is taken where it would be handed over, and
the workers say at once that they are done. Figures: seconds to build the graph, for 10^5 chunks; its tasks and bytes;
and the tasks a second that the scheduler takes, which is what a cluster may wait for where tasks are short.
"""

from __future__ import annotations

import asyncio
import pickle
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
import zarr
from dask._task_spec import convert_legacy_graph
from dask.order import order
from distributed.core import Status
from distributed.scheduler import ClientState, Scheduler, WorkerState
from harness import Case, Report, Session, Task, main, median

from lrgls_dask import System, UnwrittenChunks
from lrgls_dask.rows.kernels import gram_kernel
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.run_pass import run_pass

FULL = {"stored": 1_000_000, "dask": 20_000, "scheduled": 1_000_000, "workers": 500}
SMALL = {"stored": 3_000, "dask": 300, "scheduled": 3_000, "workers": 20}
EQUATIONS, REGRESSORS, ROWS = 1_000, 10, 2_000  # 16 MB a chunk
SAMPLE = 2_000  # tasks whose bytes are counted


class Handed(Exception):
    """A graph where it would be handed to a scheduler, and its key."""


def take(graph: Mapping[Any, Any], key: Any, **_: Any) -> None:
    raise Handed(graph, key)


def arrays(kind: str, n_chunks: int) -> System:
    """Rows of so many chunks: of a store that holds no numbers, or of a Dask graph of three layers."""
    shapes = [(n_chunks * ROWS, width) for width in (EQUATIONS, REGRESSORS)]
    if kind == "stored":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnwrittenChunks)
            return System.from_arrays(
                *(zarr.create_array({}, shape=shape, chunks=(ROWS, shape[1]), dtype="f8") for shape in shapes)
            )
    Y, X = (da.zeros(shape, chunks=(ROWS, shape[1])) for shape in shapes)
    return System.from_arrays(Y.map_blocks(np.negative, dtype=float), X)


def graph_of(system: System) -> tuple[dict[Any, Any], Any]:
    """That of the pass that compresses these rows, and the key of its sum."""
    width = system.n_equations + system.n_regressors
    with dask.config.set(scheduler=take), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnwrittenChunks)
        try:
            run_pass(system.rows, gram_kernel, None, partial_bytes=8 * width**2 // 100, meter=Meter())
        except Handed as handed:
            return handed.args
    raise RuntimeError("the pass handed no graph over")


def build(kind: str, n_chunks: int) -> dict[str, Any]:
    """A task: seconds of process time to build the graph of a pass."""
    system, began = arrays(kind, n_chunks), time.process_time()
    graph, _ = graph_of(system)
    seconds = time.process_time() - began
    some = list(graph.values())[:SAMPLE]
    n_bytes = len(graph) * sum(len(pickle.dumps(each)) for each in some) / len(some)
    per_chunk = 1e5 / n_chunks
    return {"seconds": seconds, "seconds_1e5_chunks": per_chunk * seconds, "tasks": len(graph), "graph_bytes": n_bytes}


class Workers:
    """What the scheduler sends to any worker, kept."""

    def __init__(self) -> None:
        self.to_do: deque[tuple[str, Any, int]] = deque()

    def of(self, address: str) -> Any:
        outer = self

        class Comm:
            def send(self, *messages: dict[str, Any]) -> None:
                for each in messages:
                    if each["op"] == "compute-task":
                        outer.to_do.append((address, each["key"], each["run_id"]))

        return Comm()


def joined(scheduler: Scheduler, n_workers: int) -> Workers:
    workers = Workers()
    for number in range(n_workers):
        address = f"tcp://10.0.{number // 250}.{number % 250 + 1}:1"
        worker = WorkerState(
            address=address,
            status=Status.running,
            pid=0,
            name=number,
            nthreads=2,
            memory_limit=2**33,
            local_directory="",
            nanny=None,
            server_id=address,
            scheduler=scheduler,
        )
        scheduler.workers[address] = worker
        scheduler.running.add(worker)
        scheduler.total_nthreads += 2
        scheduler.stream_comms[address] = workers.of(address)
        scheduler.check_idle_saturated(worker)
        scheduler.extensions["stealing"].add_worker(scheduler=scheduler, worker=address)
    return workers


async def scheduled(graph: dict[Any, Any], key: Any, n_workers: int) -> dict[str, Any]:
    tasks = convert_legacy_graph(graph)
    began = time.process_time()
    priorities = order(tasks)
    ordering = time.process_time() - began
    with dask.config.set({"distributed.admin.low-level-log-length": 0}):
        async with Scheduler(dashboard=False, dashboard_address="127.0.0.1:0", host="127.0.0.1") as scheduler:
            workers = joined(scheduler, n_workers)
            scheduler.clients["client"] = ClientState("client")
            began = time.process_time()
            scheduler._create_taskstate_from_graph(
                start=time.time(),
                dsk=tasks,
                keys={key},
                ordered=priorities,
                client="client",
                annotations_by_type={},
                global_annotations=None,
                stimulus_id="graph",
                submitting_task=None,
                span_metadata={"collections": []},
            )
            taking, began, done = time.process_time() - began, time.process_time(), 0
            while workers.to_do:
                address, each, run_id = workers.to_do.popleft()
                found, to_client, to_workers = scheduler.stimulus_task_finished(
                    address, "done", each, run_id, {}, nbytes=2**20, typename="GramMoments", type=b"", startstops=()
                )
                scheduler._transitions(found, to_client, to_workers, "done")
                scheduler.send_all({}, to_workers)
                scheduler.stimulus_queue_slots_maybe_opened(stimulus_id="done")
                done += 1
            running = time.process_time() - began
            for address in list(scheduler.workers):
                scheduler.extensions["stealing"].remove_worker(scheduler=scheduler, worker=address)
                scheduler.stream_comms.pop(address)
                scheduler.running.discard(scheduler.workers[address])
                del scheduler.workers[address]
            scheduler.clients.pop("client")
    return {"order_seconds": ordering, "take_seconds": taking, "run_seconds": running, "tasks": done}


def schedule(n_chunks: int, n_workers: int) -> dict[str, Any]:
    """A task: seconds of process time of a scheduler for a pass, and transitions a second."""
    graph, key = graph_of(arrays("stored", n_chunks))
    found = asyncio.run(scheduled(graph, key, n_workers))
    found["seconds"] = found["order_seconds"] + found["take_seconds"] + found["run_seconds"]
    return {**found, "tasks_a_second": found["tasks"] / (found["take_seconds"] + found["run_seconds"])}


TASKS: dict[str, Task] = {"build": build, "schedule": schedule}


def run(session: Session) -> Report:
    sizes = SMALL if session.small else FULL
    cases = [
        Case("stored", "build", {"kind": "stored", "n_chunks": sizes["stored"]}),
        Case("dask", "build", {"kind": "dask", "n_chunks": sizes["dask"]}),
        Case("scheduler", "schedule", {"n_chunks": sizes["scheduled"], "n_workers": sizes["workers"]}),
    ]
    runs = session.alternate(cases)
    summary = {
        "stored_seconds_1e5_chunks": median(runs, "stored", "seconds_1e5_chunks"),
        "dask_seconds_1e5_chunks": median(runs, "dask", "seconds_1e5_chunks"),
        "stored_chunks_a_task": sizes["stored"] / median(runs, "stored", "tasks"),
        "scheduler_tasks_a_second": median(runs, "scheduler", "tasks_a_second"),
    }
    return Report({**sizes, "distributed": distributed.__version__}, runs, summary)


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
