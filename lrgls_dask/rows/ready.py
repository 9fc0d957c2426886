"""What a cluster is asked before work is sent: who is there, versions, limits, and whether each worker sees the data.

Each worker is asked once by each client. After that a pass costs one question to the scheduler: who is there. One that
does not answer in time is waited for once, its answer taken whenever it comes; until then it looks for itself, see
`seen`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import re
import sys
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
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

from lrgls_dask.errors import ClusterLost
from lrgls_dask.rows.cluster import check_connected, loop_of, patience, scheduler_gone, workers_of
from lrgls_dask.rows.events import say
from lrgls_dask.rows.seen import Passport, Recipe, not_seen, own_version, place_of, recipes_of

__all__ = [
    "WORKER_BASE",
    "WorkerLimit",
    "check_stores",
    "check_workers",
    "limits_of",
    "present_workers",
]

WORKER_BASE = 260 * 2**20  # a worker process with the libraries loaded and nothing to do
OPENED_WITHIN = 20.0  # seconds to open what is read, packages being imported for it
ANSWER_WITHIN = 5.0  # a worker too busy, or stopped, to say so in time is not waited for
GIVEN_UP = 60.0  # seconds after which a question that nobody answered is asked again, and not waited for
LOOK_EVERY = 0.5
PLACES_KNOWN = 512  # arrays that workers are known to see: a soak of fits keeps no more
SAME_ENOUGH = {"Python": 2, "numpy": 1}  # leading numbers of a version that must agree; of others all of them
STAGES = ("target", "spill", "pause", "terminate")

Workers = Mapping[str, Mapping[str, Any]]
Facts = Mapping[str, Mapping[str, Any]]
# Address, nanny and folder of a worker: each that is started makes a folder of its own, whatever it may share.
Identity = tuple[str, Any, Any]


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


@dataclass(eq=False)
class _Question:
    """A question to a worker.  until : when its answer is no longer waited for.  is_told : whether that was logged."""

    answer: concurrent.futures.Future[Any]
    until: float
    is_told: bool = False


@dataclass
class _Known:
    """What a client's workers have been asked, those that are there: who they are, and for what they see.

    late : those that did not answer in time, and are not waited for again.  recipes : of what was asked for.
    """

    facts: dict[Identity, _Question] = field(default_factory=dict)
    stores: dict[tuple[Identity, str], _Question] = field(default_factory=dict)
    late: set[Identity] = field(default_factory=set)
    recipes: dict[str, list[Recipe]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def forget(self, there: Iterable[Identity]) -> None:
        """Drop what was asked of workers that are no longer there."""
        here = set(there)
        gone = [each for key, each in self.facts.items() if key not in here]
        gone += [each for (key, _), each in self.stores.items() if key not in here]
        for question in gone:
            question.answer.cancel()
        self.facts = {key: each for key, each in self.facts.items() if key in here}
        self.stores = {key: each for key, each in self.stores.items() if key[0] in here}
        self.late &= here


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
    """Raise ClusterLost where a worker has another Python, NumPy or version of this package, or too little memory.

    One that is late with its answer has a `Passport` to look at.
    """
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
    python = ".".join(map(str, sys.version_info[:3]))
    return {"Python": python, "numpy": metadata.version("numpy"), "lrgls_dask": own_version()}


def _leading(version: str | None, n: int | None) -> Any:
    return None if version is None else version if n is None else version.split(".")[:n]


# ------------------------------------------------------------------------------------------------- questions


def _facts(client: distributed.Client) -> tuple[Workers, Facts]:
    """Who is there, and what each says of itself; of one that is late, nothing."""
    known = _known.setdefault(client, _Known())
    workers = present_workers(client)
    there: dict[Identity, str] = {
        (address, worker.get("nanny"), worker.get("local_directory")): address for address, worker in workers.items()
    }
    with known.lock:
        known.forget(there)
        for key, address in there.items():
            if key not in known.facts:
                known.facts[key] = _ask(client, _ask_facts(client, address), _within(known, key, ANSWER_WITHIN))
        asked = {key: known.facts[key] for key in there if key in known.facts}
    said = _heard(client, known, asked)
    with known.lock:
        for key, question in asked.items():
            if question.answer.done() and not said.get(key) and known.facts.get(key) is question:
                del known.facts[key]
        new = {key: facts for key, facts in said.items() if facts and not asked[key].is_told}
        for key in new:
            asked[key].is_told = True
    _tell(client, {there[key]: facts for key, facts in new.items()})
    return workers, {there[key]: facts for key, facts in said.items() if facts}


def _within(known: _Known, worker: Identity, seconds: float) -> float:
    """How long a worker's answer is waited for: one that was late once holds up no further pass."""
    return 0.0 if worker in known.late else seconds


def _ask(client: distributed.Client, question: Coroutine[Any, Any, Any], within: float) -> _Question:
    """A question on its way, which nobody waits for yet."""

    async def asked() -> Any:
        return await asyncio.wait_for(question, max(GIVEN_UP, within))

    try:
        check_connected(client)
    except ClusterLost:
        question.close()
        raise
    return _Question(asyncio.run_coroutine_threadsafe(asked(), loop_of(client)), time.monotonic() + within)


def _heard(client: distributed.Client, known: _Known, asked: Mapping[Identity, _Question]) -> dict[Identity, Any]:
    """The answers that come in time, of workers; one that comes later is here the next time.

    Raises ClusterLost where the scheduler has gone away.
    """
    until = max((each.until for each in asked.values()), default=0.0)
    concurrent.futures.wait([each.answer for each in asked.values()], timeout=max(0.0, until - time.monotonic()))
    said = {}
    for worker, question in asked.items():
        if not question.answer.done():
            if worker not in known.late:
                known.late.add(worker)
                say("late", level="WARNING", worker=worker[0])
            continue
        try:
            said[worker] = question.answer.result()
            known.late.discard(worker)
        except (TimeoutError, concurrent.futures.CancelledError):  # given up, or of a worker that has gone
            known.late.add(worker)
        except (CommClosedError, OSError) as error:
            raise scheduler_gone(client) from error
    return said


def _tell(client: distributed.Client, said: Facts) -> None:
    """Log who is there, and whose Dask is another one: that may go well."""
    if said:
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


# --------------------------------------------------------------------------------------------- what is read


def check_stores(client: distributed.Client, parts: Iterable[Any]) -> Passport:
    """What a worker that has not answered needs to look for itself.

    zarr reads chunks that are not there as their fill value: a path that only the client sees would be rows of it.
    parts : named arrays, see `Part`.  Each worker opens every array once, from its URL or path and the options it was
    opened with; memory of this process is sent along, and not looked at.
    Raises ClusterLost where a worker does not find a stored array as this process has opened it.
    """
    known = _known.setdefault(client, _Known())
    named = {place_of(part): part for part in parts if not isinstance(part.array, np.ndarray)}
    with known.lock:
        if len(known.recipes) > PLACES_KNOWN:
            known.recipes, known.stores = {}, {}
        for place, part in named.items():
            if place not in known.recipes:
                known.recipes[place] = recipes_of(part)
        recipes = {place: known.recipes[place] for place in named if known.recipes[place]}
        questions = {worker: _ask_of(client, known, worker, recipes) for worker in known.facts if recipes}
    for question in dict.fromkeys(each for of_worker in questions.values() for each in of_worker):
        asked = {worker: question for worker, of_worker in questions.items() if question in of_worker}
        for worker, wrong in _heard(client, known, asked).items():
            if wrong:
                with known.lock:
                    known.stores = {key: each for key, each in known.stores.items() if each is not question}
                raise ClusterLost(not_seen(worker[0], *wrong))
    return Passport(own_version(), tuple(recipe for each in recipes.values() for recipe in each))


def _ask_of(
    client: distributed.Client, known: _Known, worker: Identity, recipes: Mapping[str, list[Recipe]]
) -> list[_Question]:
    """The questions to a worker that are about these places: one for all that it was not asked of yet, and older ones.

    One that was given up without an answer is asked anew.
    """
    old = {place: known.stores[worker, place] for place in recipes if (worker, place) in known.stores}
    old = {place: each for place, each in old.items() if not (each.answer.done() and _failed(each))}
    new = [place for place in recipes if place not in old]
    if new:
        sent = cloudpickle.dumps([recipe for place in new for recipe in recipes[place]])
        asked = _ask(client, _ask_stores(client, worker[0], sent), _within(known, worker, OPENED_WITHIN))
        known.stores.update(((worker, place), asked) for place in new)
        old.update(dict.fromkeys(new, asked))
    return list(old.values())


def _failed(question: _Question) -> bool:
    return question.answer.cancelled() or question.answer.exception() is not None


async def _ask_stores(client: distributed.Client, address: str, sent: bytes) -> tuple[str, str, str] | None:
    """What a worker finds wrong; None where it finds nothing, or has gone."""

    async def look(sent: bytes) -> Any:
        """Sent by value: packages are imported in a thread of its own, and not where heartbeats come from."""

        def in_thread() -> Any:
            pickle, seen = map(importlib.import_module, ("pickle", "lrgls_dask.rows.seen"))
            return seen.first_not_found(pickle.loads(sent))

        return await asyncio.to_thread(in_thread)

    answer = await client.run(look, sent, workers=[address], on_error="return", asynchronous=True)
    found: Any = answer.get(address)
    if isinstance(found, CommClosedError | OSError | None):
        return None
    if isinstance(found, Exception):
        return "the rows", "its store", f"{type(found).__name__}: {found}"
    return found or None
