"""Work on a cluster that may fail: asked for, waited for, and given up with a reason and a remedy.

While a result is awaited the scheduler is asked every few seconds which workers it has heard of. A worker that
computes, however long, sends heartbeats all the while; one that was stopped sends none. One that is only too busy for
them is told from that by its nanny, which sees the process. Before work is sent the workers are asked which version of
this package they have: one round trip.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import distributed
from dask.typing import Key
from distributed.comm import CommClosedError

from lrgls_dask.errors import ClusterLost

__all__ = ["Box", "check_versions", "client_of", "computed", "scattered", "workers_of"]

# Seconds between two looks, and for an answer to one; a worker sends a heartbeat every half second to five seconds.
LOOK_EVERY, ANSWER_WITHIN = 2.0, 10.0
# Seconds without a heartbeat after which a worker's nanny is asked; and, where that does not answer either, or it is
# the scheduler that gives no answer, after which they are taken for lost.
SILENT, LOST = 15.0, 40.0
VERSION_WITHIN = 5.0
GO_ON = "Then call fit again: with checkpoint=... it goes on where it was"


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


def computed(get: Any, graph: Mapping[Key, Any], keys: Any) -> Any:
    """What `get(graph, keys)` returns.

    Raises ClusterLost, on a cluster, within a minute of the scheduler's going away or of a worker's being stopped.
    """
    client = client_of(get)
    if client is None:
        return get(graph, keys)

    async def results() -> Any:
        return await client.gather(client.get(graph, keys, sync=False), asynchronous=True)

    return _attended(client, results, frozenset(graph))


def scattered(client: distributed.Client, data: Any) -> Any:
    """Futures of data that are sent to the workers. Raises ClusterLost as `computed` does."""
    return _attended(client, lambda: client.scatter(data, hash=False, asynchronous=True), None)


def workers_of(client: distributed.Client) -> Mapping[str, Mapping[str, Any]]:
    """What the scheduler says of every worker, by address. Raises ClusterLost as `computed` does."""
    said = _attended(client, lambda: client.scheduler.identity(), None)  # type: ignore[union-attr]
    found: Mapping[str, Mapping[str, Any]] = said["workers"]
    return found


def check_versions(client: distributed.Client) -> None:
    """Raise ClusterLost where a worker has another version of this package, or none.

    A worker too busy, or stopped, to say so in time is not waited for.
    """

    def version() -> str | None:
        """Sent by value, for a worker that may not have this module; an import would keep it from its heartbeats."""
        if "lrgls_dask" in sys.modules:
            return str(sys.modules["lrgls_dask"].__version__)
        found: Any = importlib.util.find_spec("lrgls_dask")
        said = None if found is None else re.search('__version__ = "(.*)"', found.loader.get_source("lrgls_dask"))
        return None if said is None else said[1]

    async def ask() -> dict[str, Any]:
        addresses = list((await client.scheduler.identity())["workers"])  # type: ignore[union-attr]
        asked = [
            asyncio.create_task(client.run(version, workers=[address], on_error="ignore", asynchronous=True))
            for address in addresses
        ]
        answered, late = await asyncio.wait(asked, timeout=VERSION_WITHIN) if asked else ((), ())
        for task in late:
            task.cancel()
        return {address: theirs for task in answered for address, theirs in task.result().items()}

    check_connected(client)
    try:
        found = client.sync(ask, callback_timeout=2 * VERSION_WITHIN)
    except TimeoutError:
        return
    except (CommClosedError, OSError) as error:
        raise _scheduler_gone(client) from error
    mine = version()
    other = {address: theirs for address, theirs in found.items() if theirs != mine}
    if other:
        address, theirs = next(iter(other.items()))
        has = "no lrgls_dask" if theirs is None else f"lrgls_dask {theirs}"
        more = f", as have {len(other) - 1} more workers or other versions" if len(other) > 1 else ""
        raise ClusterLost(
            f"the worker {address} has {has} and the client has {mine}{more}. Install lrgls_dask {mine} on every "
            "worker and restart them, or the workers' version here."
        )


# ---------------------------------------------------------------------------------------------- waiting


def _attended(
    client: distributed.Client, begin: Callable[[], Coroutine[Any, Any, Any]], keys: Collection[Key] | None
) -> Any:
    """The result of a coroutine on the client's loop, the cluster being looked after meanwhile."""
    check_connected(client)
    waiting = asyncio.run_coroutine_threadsafe(begin(), _loop(client))
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
            raise _scheduler_gone(client) from error
        raise
    finally:
        waiting.cancel()


def _loop(client: distributed.Client) -> asyncio.AbstractEventLoop:
    loop: Any = client.loop
    found: asyncio.AbstractEventLoop = loop.asyncio_loop
    return found


def check_connected(client: distributed.Client) -> None:
    """Raise ClusterLost where the client has no scheduler any more."""
    if client.status != "running":
        raise _scheduler_gone(client)


def _scheduler_gone(client: distributed.Client) -> ClusterLost:
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
            raise _scheduler_gone(self.client) from error


def _is_stopped(client: distributed.Client, address: str) -> bool | None:
    """Whether a worker's process is stopped, as its nanny sees it; None where there is none, or it does not answer."""

    def state(dask_worker: Any) -> str:  # the nanny, in its own process
        found: str = importlib.import_module("psutil").Process(dask_worker.pid).status()
        return found

    try:
        said = client.run(state, workers=[address], nanny=True, callback_timeout=VERSION_WITHIN)
    except Exception:  # no nanny, or one that was stopped too: there is no more to know
        return None
    return any("stop" in each for each in said.values()) if said else None
