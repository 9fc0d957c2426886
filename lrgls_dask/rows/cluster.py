"""Work on a cluster that may fail: asked for, waited for, and given up with a reason and a remedy.

While a result is awaited the scheduler is asked every few seconds which workers it has heard of. A worker that
computes, however long, sends heartbeats all the while; one that was stopped sends none. One that is only too busy for
them is told from that by its nanny, which sees the process.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import dask
import distributed
from dask.typing import Key
from dask.utils import format_bytes, parse_timedelta
from distributed.comm import CommClosedError

from lrgls_dask.errors import ClusterLost

__all__ = [
    "Box",
    "check_connected",
    "client_of",
    "computed",
    "loop_of",
    "patience",
    "scattered",
    "scheduler_gone",
    "workers_of",
]

# Seconds between two looks, and for an answer to one; a worker sends a heartbeat every half second to five seconds.
LOOK_EVERY, ANSWER_WITHIN = 2.0, 10.0
# Seconds without a heartbeat after which a worker's nanny is asked; and, where that does not answer either, or it is
# the scheduler that gives no answer, after which they are taken for lost.
SILENT, LOST = 15.0, 40.0
NANNY_WITHIN = 5.0
WITHOUT_WORKERS = 50.0  # seconds without any worker, or with none that takes work, until that is said
GO_ON = "Then call fit again: with checkpoint=... it goes on where it was"


# Of the key of a task what it works on, in words, and the bytes that a worker was planned to hold.
Restated = Callable[[Key], tuple[str, int | None]]


@dataclass(frozen=True, eq=False)
class Box:
    """Keeps a scheduler from looking for task keys inside a value, and a client from reading it to name its graph.

    The keys of a graph are its own, so that nothing else can have its name.
    """

    value: Any

    def __dask_tokenize__(self) -> int:
        return id(self)


def client_of(get: Any) -> distributed.Client | None:
    """The client whose `get` it is, None for another scheduler."""
    client = getattr(get, "__self__", None)
    return client if isinstance(client, distributed.Client) else None


def computed(get: Any, graph: Mapping[Key, Any], keys: Any, restated: Restated | None = None) -> Any:
    """What `get(graph, keys)` returns.

    restated : what a task did, by its key, that workers died of, and the bytes that were planned for it.
    Raises ClusterLost, on a cluster, within a minute of the scheduler's going away or of a worker's being stopped, and
    where workers died of a task again and again.
    """
    client = client_of(get)
    if client is None:
        return get(graph, keys)

    async def results() -> Any:
        return await client.gather(client.get(graph, keys, sync=False), asynchronous=True)

    try:
        return _attended(client, results, frozenset(graph))
    except distributed.KilledWorker as error:
        raise ClusterLost(_killed(error, restated)) from error


def _killed(error: distributed.KilledWorker, restated: Restated | None) -> str:
    """Which work it was, and what it was to take."""
    what, n_bytes = ("work that reads no rows", None) if restated is None else restated(error.task)
    limit, planned = getattr(error.last_worker, "memory_limit", 0), ""
    if n_bytes is not None:
        planned = f"; the pass was planned to hold {format_bytes(n_bytes)} in each worker"
    if limit:
        planned += f"; the worker's memory limit is {format_bytes(limit)}"
    return (
        f"{error.allowed_failures + 1} workers died one after another of {what}, the last of them "
        f"{error.last_worker.address}{planned}. Most often they ran out of memory: give each worker more of it or "
        "fewer threads, or store the rows in smaller chunks; where a task ends the process, the workers' logs say "
        f"how. {GO_ON}."
    )


def scattered(client: distributed.Client, data: Any) -> Any:
    """Futures of data that are sent to the workers. Raises ClusterLost as `computed` does."""
    return _attended(client, lambda: client.scatter(data, hash=False, asynchronous=True), None)


def patience() -> float:
    """Seconds that workers are waited for where there are none: Dask's own setting, where it has a value."""
    given = dask.config.get("distributed.scheduler.no-workers-timeout", None)
    return WITHOUT_WORKERS if given is None else float(parse_timedelta(given))


def workers_of(client: distributed.Client) -> Mapping[str, Mapping[str, Any]]:
    """What the scheduler says of every worker, by address. Raises ClusterLost as `computed` does."""
    said = _attended(client, lambda: client.scheduler.identity(), None)  # type: ignore[union-attr]
    found: Mapping[str, Mapping[str, Any]] = said["workers"]
    return found


# ---------------------------------------------------------------------------------------------- waiting


def _attended(
    client: distributed.Client, begin: Callable[[], Coroutine[Any, Any, Any]], keys: Collection[Key] | None
) -> Any:
    """The result of a coroutine on the client's loop, the cluster being looked after meanwhile."""
    check_connected(client)
    waiting = asyncio.run_coroutine_threadsafe(begin(), loop_of(client))
    watch = _Watch(client, keys)
    try:
        while True:
            try:
                return waiting.result(LOOK_EVERY)
            except TimeoutError:
                if waiting.done():  # it was the work that took too long for itself
                    raise
                watch.look()
    except (CancelledError, CommClosedError) as error:
        if isinstance(error, CommClosedError) or "scheduler" in str(error) or client.status != "running":
            raise scheduler_gone(client) from error
        raise
    finally:
        waiting.cancel()


def loop_of(client: distributed.Client) -> asyncio.AbstractEventLoop:
    """Where what a client asks for runs."""
    loop: Any = client.loop
    found: asyncio.AbstractEventLoop = loop.asyncio_loop
    return found


def check_connected(client: distributed.Client) -> None:
    """Raise ClusterLost where the client has no scheduler any more."""
    if client.status != "running":
        raise scheduler_gone(client)


def scheduler_gone(client: distributed.Client) -> ClusterLost:
    return ClusterLost(
        f"the scheduler {_address(client)} went away, and with it the work it had been given. Start a cluster and a "
        f"Client for it again. {GO_ON}."
    )


def _address(client: distributed.Client) -> str:
    scheduler = client.scheduler
    return str(getattr(scheduler, "address", None) or "of the client")


@dataclass
class _Watch:
    """How long nobody has heard of a worker or of the scheduler, in seconds in which somebody listened.

    keys : of the work; a worker that has none of them is no concern. None for any worker.
    """

    client: distributed.Client
    keys: Collection[Key] | None
    seen: dict[str, float] = field(default_factory=dict)
    silent: dict[str, float] = field(default_factory=dict)
    unanswered: float = 0.0
    unable: float = 0.0
    looked: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Raise ClusterLost for a scheduler that does not answer, or a worker of whom it has not heard."""
        began = time.monotonic()
        workers = self._ask("identity")
        now = time.monotonic()
        if workers is None:
            self.unanswered += now - began
            if self.unanswered >= LOST:
                raise ClusterLost(
                    f"the scheduler {_address(self.client)} has not answered for {self.unanswered:.0f} seconds: it is "
                    f"stopped, or cannot be reached. Restart the cluster. {GO_ON}."
                )
            return
        # time in which nobody listened, the scheduler busy or this process asleep, says nothing of a worker
        listened, self.looked, self.unanswered = min(now - self.looked, 2.0 * LOOK_EVERY), now, 0.0
        self._look_at_all(workers["workers"], listened)
        last = {address: float(worker["last_seen"]) for address, worker in workers["workers"].items()}
        self.silent = {
            address: self.silent.get(address, 0.0) + listened if self.seen.get(address) == heard else 0.0
            for address, heard in last.items()
        }
        self.seen = last
        for address, seconds in self.silent.items():
            if seconds < SILENT or not self._has_work(address):
                continue
            is_stopped = _is_stopped(self.client, address)
            if is_stopped is False:
                self.silent[address] = 0.0
            elif is_stopped or seconds >= LOST:
                raise ClusterLost(
                    f"the worker {address} has sent no heartbeat for {seconds:.0f} seconds: it is stopped, or cannot "
                    f"be reached, while work waits for it. Restart or remove it. {GO_ON}."
                )

    def _look_at_all(self, workers: Mapping[str, Mapping[str, Any]], listened: float) -> None:
        """Raise ClusterLost where for long there is no worker, or only such as take no work for want of memory."""
        able = any(
            worker.get("status") == "running" or worker["metrics"].get("task_counts", {}).get("executing")
            for worker in workers.values()
        )
        self.unable = 0.0 if able else self.unable + listened
        if self.unable < patience():
            return
        if not workers:
            raise ClusterLost(
                f"the cluster has had no worker for {self.unable:.0f} seconds, and work waits for one. Start workers "
                "again; where they end as they start, give them more memory. "
                "distributed.scheduler.no-workers-timeout of Dask's configuration says how long they are waited for. "
                f"{GO_ON}."
            )
        address, worker = next(iter(workers.items()))
        held, limit = worker["metrics"].get("memory", 0), worker.get("memory_limit") or 0
        raise ClusterLost(
            f"no worker has taken work for {self.unable:.0f} seconds: the worker {address}, as all of them, is "
            f"{worker.get('status')}, and holds {format_bytes(held)} of a memory limit of {format_bytes(limit)}. Give "
            f"each worker more memory or fewer threads. {GO_ON}."
        )

    def _has_work(self, address: str) -> bool:
        """Whether a worker computes or holds something of the work."""
        if self.keys is None:
            return True
        for question in ("processing", "has_what"):
            held = self._ask(question, workers=[address])
            if held is None or any(key in self.keys for key in held.get(address, ())):
                return True
        return False

    def _ask(self, question: str, **what: Any) -> Any:
        """The scheduler's answer, None where there is none in time."""
        try:
            return self.client.sync(getattr(self.client.scheduler, question), callback_timeout=ANSWER_WITHIN, **what)
        except TimeoutError:
            return None
        except (CommClosedError, OSError) as error:
            raise scheduler_gone(self.client) from error


def _is_stopped(client: distributed.Client, address: str) -> bool | None:
    """Whether a worker's process is stopped, as its nanny sees it; None where there is none, or it does not answer."""

    def state(dask_worker: Any) -> str:  # the nanny, in its own process
        found: str = importlib.import_module("psutil").Process(dask_worker.pid).status()
        return found

    try:
        said = client.run(state, workers=[address], nanny=True, callback_timeout=NANNY_WITHIN)
    except Exception:  # no nanny, or one that was stopped too: there is no more to know
        return None
    return any("stop" in each for each in said.values()) if said else None
