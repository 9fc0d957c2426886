"""What a cluster is asked before work is sent: who is there, versions, limits, and whether each worker sees the data.

Each worker is asked once by each client. After that a pass costs one question to the scheduler: who is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
import dask
import distributed
import numpy as np
from dask.utils import format_bytes
from distributed.comm import CommClosedError
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows.behind import stored_arrays
from lrgls_dask.rows.cluster import check_connected, patience, scheduler_gone, workers_of
from lrgls_dask.rows.events import say

__all__ = [
    "WORKER_BASE",
    "WorkerLimit",
    "check_stores",
    "check_workers",
    "first_not_found",
    "limits_of",
    "present_workers",
]

WORKER_BASE = 260 * 2**20  # a worker process with the libraries loaded and nothing to do
OPENED_WITHIN = 20.0  # seconds to open what is read, packages being imported for it
ANSWER_WITHIN = 5.0  # a worker too busy, or stopped, to say so in time is not waited for
LOOK_EVERY = 0.5
SAME_ENOUGH = {"Python": 2, "numpy": 1}  # leading numbers of a version that must agree; of others all of them
MARKS = ("zarr.json", ".zarray")
STAGES = ("target", "spill", "pause", "terminate")

Workers = Mapping[str, Mapping[str, Any]]
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class WorkerLimit:
    """What a worker may hold. n_bytes : its memory limit, None where it has none.  share : of it, before anything is
    spilled, paused or ended.  most : the share at which work stops.  first : what happens at `share`."""

    address: str
    n_threads: int
    n_bytes: int | None
    share: float
    most: float
    first: str

    def __str__(self) -> str:
        limit = format_bytes(self.n_bytes or 0)
        return f"the worker {self.address}, which {self.first} at {self.share:.0%} of its memory limit of {limit}"


@dataclass
class _Known:
    """What a client's workers have said, by address and nanny; a worker that is started again has other ones."""

    facts: dict[Any, dict[str, Any]] = field(default_factory=dict)
    stores: set[tuple[Any, str]] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)


_known: WeakKeyDictionary[distributed.Client, _Known] = WeakKeyDictionary()


def present_workers(client: distributed.Client) -> Workers:
    """What the scheduler says of every worker, by address. The first one is waited for.

    Raises ClusterLost where none comes in time, see `patience`.
    """
    most, began = patience(), time.monotonic()
    while not (workers := workers_of(client)):
        if time.monotonic() - began >= most:
            raise ClusterLost(
                f"the active Dask client has had no workers for {most:.0f} seconds. Start some: "
                "`dask worker SCHEDULER-ADDRESS`, cluster.scale(2) or cluster.adapt(minimum=1); where there are some, "
                "look into their logs why they do not come. distributed.scheduler.no-workers-timeout of Dask's "
                "configuration says how long they are waited for."
            )
        time.sleep(LOOK_EVERY)
    return workers


def check_workers(client: distributed.Client) -> None:
    """Raise ClusterLost where a worker has another Python, NumPy or version of this package, or too little memory."""
    workers, found = _facts(client)
    here = _here()
    for name, mine in here.items():
        n = SAME_ENOUGH.get(name)
        other = {
            a: said[name] for a, said in found.items() if name in said and _leading(said[name], n) != _leading(mine, n)
        }
        if other:
            address, theirs = next(iter(other.items()))
            has = f"no {name}" if theirs is None else f"{name} {theirs}"
            more = f", as have {len(other) - 1} more workers or other versions" if len(other) > 1 else ""
            raise ClusterLost(
                f"the worker {address} has {has} and the client has {mine}{more}. Install {name} {mine} on every "
                "worker and restart them, or the workers' version here."
            )
    for limit in _limits(workers, found):
        if limit.n_bytes is not None and limit.most * limit.n_bytes < WORKER_BASE:
            enough = format_bytes(int(2 * WORKER_BASE / limit.most))
            raise ClusterLost(
                f"the worker {limit.address} has a memory limit of {format_bytes(limit.n_bytes)} and stops working at "
                f"{limit.most:.0%} of it; with the libraries loaded it holds {format_bytes(WORKER_BASE)} before any "
                f"row is read. Give every worker a memory limit of {enough} or more."
            )


def limits_of(client: distributed.Client) -> list[WorkerLimit]:
    """What each worker may hold, by its own configuration, or by this process's where it has not answered."""
    return _limits(*_facts(client))


def _limits(workers: Workers, facts: Facts) -> list[WorkerLimit]:
    return [
        _limit(address, worker, facts.get(address, {}).get("memory") or _memory_settings())
        for address, worker in workers.items()
    ]


def _limit(address: str, worker: Mapping[str, Any], settings: Mapping[str, Any]) -> WorkerLimit:
    at = {name: float(share) for name, share in settings.items() if share}
    words = {"target": "begins to spill", "spill": "spills", "pause": "pauses", "terminate": "is ended"}
    first = min(at, key=lambda name: at[name], default="terminate")
    most = min((at[name] for name in ("pause", "terminate") if name in at), default=1.0)
    n_bytes = worker.get("memory_limit") or None
    return WorkerLimit(address, int(worker["nthreads"]), n_bytes, at.get(first, 1.0), most, words[first])


def _memory_settings() -> dict[str, Any]:
    return {name: dask.config.get(f"distributed.worker.memory.{name}", None) for name in STAGES}


def _here() -> dict[str, str | None]:
    own: Any = sys.modules["lrgls_dask"]
    python = ".".join(map(str, sys.version_info[:3]))
    return {"Python": python, "numpy": metadata.version("numpy"), "lrgls_dask": own.__version__}


def _leading(version: str | None, n: int | None) -> Any:
    return None if version is None else version if n is None else version.split(".")[:n]


# ------------------------------------------------------------------------------------------------- questions


def _facts(client: distributed.Client) -> tuple[Workers, Facts]:
    """Who is there, and what each says of itself; one that is late is left out, and asked again the next time."""
    known = _known.setdefault(client, _Known())
    with known.lock:
        workers = present_workers(client)
        there = {(address, worker.get("nanny")) for address, worker in workers.items()}
        known.facts = {key: said for key, said in known.facts.items() if key in there}
        known.stores = {(key, place) for key, place in known.stores if key in there}
        new = {address: (address, nanny) for address, nanny in there if (address, nanny) not in known.facts}
        if new:
            said = _asked_each(client, new, lambda address: _ask_facts(client, address))
            known.facts.update({new[address]: facts for address, facts in said.items() if facts})
            _tell(client, said)
        return workers, {address: facts for (address, _), facts in known.facts.items()}


def _tell(client: distributed.Client, said: Facts) -> None:
    """Log who is there, and whose Dask is another one: that may go well."""
    say("workers", scheduler=str(getattr(client.scheduler, "address", "")), workers=len(said))
    for address, facts in said.items():
        theirs, mine = facts.get("distributed"), distributed.__version__
        if theirs not in (None, mine):
            say("versions", level="WARNING", worker=address, distributed=theirs, of_client=mine)


async def _ask_facts(client: distributed.Client, address: str) -> dict[str, Any] | None:
    """Versions by a question of Dask's own first: another Python could not read a function that it is sent."""

    def more() -> dict[str, Any]:
        """Sent by value, for a worker that may not have this module; an import would keep it from its heartbeats."""
        settings = {name: dask.config.get(f"distributed.worker.memory.{name}", None) for name in stages}
        if "lrgls_dask" in sys.modules:
            return {"memory": settings, "lrgls_dask": str(sys.modules["lrgls_dask"].__version__)}
        found: Any = importlib.util.find_spec("lrgls_dask")
        said = None if found is None else re.search('__version__ = "(.*)"', found.loader.get_source("lrgls_dask"))
        return {"memory": settings, "lrgls_dask": None if said is None else said[1]}

    stages = STAGES
    scheduler: Any = client.scheduler
    said = await scheduler.broadcast(msg={"op": "versions", "packages": []}, workers=[address], on_error="ignore")
    if address not in said:
        return None
    host, packages = said[address]["host"], said[address]["packages"]
    facts = {"Python": ".".join(host["python"].split(".")[:3])}
    facts |= {name: packages[name] for name in ("numpy", "distributed") if packages.get(name)}
    if _leading(facts["Python"], 2) != _leading(_here()["Python"], 2):
        return facts
    answer = await client.run(more, workers=[address], on_error="ignore", asynchronous=True)
    return facts | answer[address] if address in answer else None


def _asked_each(
    client: distributed.Client, addresses: Iterable[str], question: Any, within: float | None = None
) -> dict[str, Any]:
    """The answers of those workers that give one in time."""

    within = ANSWER_WITHIN if within is None else within

    async def ask() -> dict[str, Any]:
        asked = {asyncio.create_task(question(address)): address for address in addresses}
        answered, late = await asyncio.wait(asked, timeout=within)
        for task in late:
            task.cancel()
        return {asked[task]: task.result() for task in answered}

    check_connected(client)
    try:
        found: dict[str, Any] = client.sync(ask, callback_timeout=2 * within)
        return found
    except TimeoutError:
        return {}
    except (CommClosedError, OSError) as error:
        raise scheduler_gone(client) from error


# --------------------------------------------------------------------------------------------- what is read


def check_stores(client: distributed.Client, parts: Iterable[Any]) -> None:
    """Raise ClusterLost where a worker does not find a stored array as this process has opened it.

    zarr reads chunks that are not there as their fill value: a path that only the client sees would be rows of it.
    parts : named arrays, see `Part`.  Each worker opens every array once, from its URL or path and the options it was
    opened with; memory of this process is sent along, and not looked at.
    """
    known = _known.setdefault(client, _Known())
    with known.lock:
        named = {_token(part): part for part in parts if not isinstance(part.array, np.ndarray)}
        new = {
            worker: [token for token in named if (worker, token) not in known.stores]
            for worker in known.facts  # which have answered; another may be stopped
        }
        asked = sorted({token for tokens in new.values() for token in tokens})
        recipes = {token: list(_recipes(named[token])) for token in asked}
        sent = {
            worker[0]: cloudpickle.dumps([recipe for token in tokens for recipe in recipes[token]])
            for worker, tokens in new.items()
            if any(recipes[token] for token in tokens)
        }
        if sent:
            said = _asked_each(client, sent, lambda each: _ask_stores(client, each, sent[each]), OPENED_WITHIN)
            for address, wrong in said.items():
                if wrong:
                    raise ClusterLost(_not_seen(address, *wrong))
        late = set(sent) - set(said) if sent else set()
        known.stores.update((worker, token) for worker in new if worker[0] not in late for token in new[worker])


def _token(part: Any) -> str:
    """A name of what a part reads that nothing else has: of a stored array its place, of one of Dask its own."""
    place = getattr(part.array, "store_path", None)
    return f"{part.name}: {getattr(part.array, 'name', '') if place is None else place}"


def _recipes(part: Any) -> Iterator[tuple[str, str, Store, str, str]]:
    """What a worker needs to find each array behind a part: its name, its place in words and for zarr, its digest."""
    for array in stored_arrays([part.array]):
        store, path = array.store_path.store, array.store_path.path
        mark = "" if isinstance(store, MemoryStore) else _mark(store, path)
        if mark:
            relative = isinstance(store, LocalStore) and not store.root.is_absolute()
            yield part.name, f"{'relative ' if relative else ''}path {array.store_path}", store, path, mark


async def _ask_stores(client: distributed.Client, address: str, sent: bytes) -> tuple[str, str, str] | None:
    """What a worker finds wrong; None where it finds nothing, or has gone."""

    async def look(sent: bytes) -> Any:
        """Sent by value: packages are imported in a thread of its own, and not where heartbeats come from."""

        def in_thread() -> Any:
            pickle, ready = map(importlib.import_module, ("pickle", "lrgls_dask.rows.ready"))
            return ready.first_not_found(pickle.loads(sent))

        return await asyncio.to_thread(in_thread)

    answer = await client.run(look, sent, workers=[address], on_error="return", asynchronous=True)
    found: Any = answer.get(address)
    if isinstance(found, CommClosedError | OSError | None):
        return None
    if isinstance(found, Exception):
        return "the rows", "its store", f"{type(found).__name__}: {found}"
    return found or None


def first_not_found(recipes: Iterable[tuple[str, str, Store, str, str]]) -> tuple[str, str, str] | None:
    """Of arrays the first that is not here as it was elsewhere: its name, its place and what is here instead."""
    for name, place, store, path, mark in recipes:
        try:
            found = _mark(store, path)
        except Exception as error:
            return name, place, f"{type(error).__name__}: {error}"
        if found != mark:
            return name, place, "another array is there" if found else "nothing is there"
    return None


def _mark(store: Store, path: str) -> str:
    """A digest of the metadata of an array, "" where there are none."""
    for name in MARKS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = sync(_content(store, f"{path}/{name}" if path else name))
            if found is not None:
                return hashlib.sha256(found).hexdigest()
    return ""


async def _content(store: Store, key: str) -> bytes | None:
    found = await store.get(key, default_buffer_prototype())
    return None if found is None else found.to_bytes()


def _not_seen(address: str, name: str, place: str, why: str) -> str:
    """Of a path that depends on where a process was started, and of any other."""
    remedy = "Open it by its absolute path," if place.startswith("relative") else "Put it where every worker sees it"
    return (
        f"the worker {address} does not find {name} at the {place}, where the client reads it: {why}. {remedy} on a "
        "file system that all of them share, or in an object store."
    )
